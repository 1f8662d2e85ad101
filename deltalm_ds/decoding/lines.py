"""Text that streams in, line by line, in chunks that are worked on by themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from deltalm_ds.errors import UserError

MAX_LINE_BYTES = 4 << 20
"""A longer line is taken for a mistake: memory is bounded by it."""
_CHUNK_BYTES = 16 << 20  # a chunk ends here at the latest
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line as it was read."""

    content: bytes
    """Its bytes, with its end."""
    text: str
    """Its text, without."""


@dataclass(frozen=True)
class Chunk:
    """Lines that follow each other, worked on together."""

    number: int
    """From 0."""
    first_line: int
    """How many lines are before it."""
    texts: tuple[str, ...]
    """The lines without their ends."""
    targets: tuple[str, ...] | None
    """The given targets of these lines, where there are any."""
    num_bytes: int
    """Of the lines in their file."""
    digest: str
    """SHA-256 in hexadecimal of the lines and the targets."""

    @classmethod
    def of_text(cls, number: int, text: str) -> Chunk:
        """A line by itself, the one of that number."""
        return cls(number=number, first_line=number, texts=(text,), targets=None, num_bytes=0, digest="")


def read_lines(file: BinaryIO, name: str) -> Iterator[Line]:
    """The lines of a file or pipe, ended by \\n or \\r\\n or the end; a byte order mark is no text.

    UserError with the line's number for one that is not UTF-8 or has more than MAX_LINE_BYTES.
    """
    number = 0
    while content := file.readline(MAX_LINE_BYTES + 2):
        number += 1
        line = content.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > MAX_LINE_BYTES:
            raise UserError(
                f"{name}, line {number:,}, is longer than {MAX_LINE_BYTES:,} bytes: is it text with line "
                "ends? split it"
            )
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        try:
            yield Line(content, line.decode("utf-8"))
        except UnicodeDecodeError:
            raise UserError(
                f"{name}, line {number:,}, is not UTF-8: convert the text, with iconv for example"
            ) from None


def read_chunks(
    lines: Iterator[Line], targets: Iterator[Line] | None, lines_per_chunk: int
) -> Iterator[Chunk]:
    """The lines, so many at once, each with its target where there are targets.

    Chunks depend on the text alone. UserError where there are fewer or more targets than lines.
    """
    number = first_line = 0
    rows: list[tuple[Line, Line | None]] = []
    num_bytes = 0
    for row in _rows(lines, targets):
        rows.append(row)
        num_bytes += len(row[0].content)
        if len(rows) == lines_per_chunk or num_bytes >= _CHUNK_BYTES:
            yield _chunk(number, first_line, rows)
            number, first_line = number + 1, first_line + len(rows)
            rows, num_bytes = [], 0
    if rows:
        yield _chunk(number, first_line, rows)


def _rows(lines: Iterator[Line], targets: Iterator[Line] | None) -> Iterator[tuple[Line, Line | None]]:
    if targets is None:
        yield from ((line, None) for line in lines)
        return
    count = 0
    for count, line in enumerate(lines, 1):
        target = next(targets, None)
        if target is None:
            raise UserError(
                f"there are only {count - 1:,} targets, fewer than lines of input: give one target a line"
            )
        yield line, target
    if next(targets, None) is not None:
        raise UserError(f"there are more targets than the {count:,} lines of input: give one target a line")


def _chunk(number: int, first_line: int, rows: list[tuple[Line, Line | None]]) -> Chunk:
    digest = hashlib.sha256()
    for line, target in rows:
        digest.update(line.content)
        if target is not None:
            digest.update(b"\0" + target.content)
    targets = tuple(target.text for _, target in rows if target is not None)
    return Chunk(
        number=number,
        first_line=first_line,
        texts=tuple(line.text for line, _ in rows),
        targets=targets if rows[0][1] is not None else None,
        num_bytes=sum(len(line.content) for line, _ in rows),
        digest=digest.hexdigest(),
    )
