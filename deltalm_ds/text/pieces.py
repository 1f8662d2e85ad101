"""Inputs cut into pieces: the units of work, of restarting and of sharing between processes and nodes.

Piece k of a text holds the documents from its first document border at or after byte k · PIECE_BYTES to that
at or after (k + 1) · PIECE_BYTES. So the cuts are a function of the text alone, and those of a plain file can
be found anywhere in it without reading what comes before. Of two files aligned line by line the first is cut
so, at half the size, and the second after as many lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import Input
from deltalm_ds.text.stored import StoredText, TextReader
from deltalm_ds.text.tmx import UNIT_END

PIECE_BYTES = 16 << 20
"""Bytes of text of a piece, more or less a document."""
PIECES_OF_A_PART = 64
"""Pieces of a plain file that one process reads one after the other."""
MAX_DOCUMENT_BYTES = 64 << 20
"""A longer line or document is taken for a mistake: memory is bounded by it."""

_READ_BYTES = 1 << 20
# What ends a document, and the byte it begins with.
_BORDERS = {
    "blocks": (re.compile(rb"\n[ \t\r\f\v]*\n"), b"\n"),
    "tmx": (UNIT_END, b"<"),
}
_LINE_END = (re.compile(rb"\n"), b"\n")


@dataclass(frozen=True)
class Part:
    """Pieces of an input that are read one after the other."""

    input: Input
    """Where they are from."""
    states: tuple[tuple[int, int], ...]
    """`StoredText.state` of each of its files when the work was planned."""
    stored_bytes: int
    """About how much there is to read, in bytes as on disk."""
    first: int = 0
    """Number of its first piece."""
    end: int | None = None
    """The number after its last; None reads on to the end."""


@dataclass(frozen=True)
class Piece:
    """Consecutive whole documents of one input, undecoded."""

    input: Input
    """Where it is from."""
    number: int
    """Its number in the input."""
    offsets: tuple[int, ...]
    """Where it begins in the text of each of the input's files, in bytes."""
    contents: tuple[bytes, ...] | None
    """Its bytes of each of the files; None where `read` gets them from a plain file."""
    num_bytes: int
    """Bytes of text in it."""
    stored_bytes: int
    """Bytes on disk read for it; more or fewer than its text's where files are compressed."""
    states: tuple[tuple[int, int], ...]
    """As in `Part`."""

    def read(self) -> tuple[bytes, ...]:
        """Its bytes of each of the files. UserError if a file has changed since the work was planned."""
        if self.contents is not None:
            return self.contents
        (stored,) = self.input.files
        with _Text(stored, self.states[0]) as text:
            return (text.bytes_at(self.offsets[0], self.num_bytes),)


def parts_of(entry: Input) -> list[Part]:
    """The parts of an input, in order."""
    states = tuple(text.state() for text in entry.files)
    size = sum(text.stored_bytes for text in entry.files)
    if len(entry.files) > 1 or not entry.files[0].is_plain:
        return [Part(entry, states, size)]
    num_pieces = -(-size // PIECE_BYTES)
    return [
        Part(
            entry,
            states,
            min(PIECES_OF_A_PART * PIECE_BYTES, size - first * PIECE_BYTES),
            first,
            min(first + PIECES_OF_A_PART, num_pieces),
        )
        for first in range(0, num_pieces, PIECES_OF_A_PART)
    ]


def read_pieces(part: Part) -> Iterator[Piece]:
    """The pieces of a part that hold anything, in order, at most one in memory.

    UserError for a file that cannot be read, has changed, has no document border where one must be, and for
    two files of which one has more lines.
    """
    if len(part.input.files) == 2:
        yield from _aligned_pieces(part)
    elif part.end is not None:
        yield from _plain_pieces(part)
    else:
        yield from _streamed_pieces(part)


class _Text:
    """A text from which bytes are taken: anywhere in a plain file, forwards in others."""

    def __init__(self, stored: StoredText, state: tuple[int, int]) -> None:
        self.stored = stored
        self.end: int | None = state[0] if stored.is_plain else None
        """Bytes of the text, once they are known."""
        self._reader, self._state = TextReader(stored), state
        self._buffer, self._start, self._reported = b"", 0, 0

    def __enter__(self) -> _Text:
        self._reader.check_unchanged(self._state)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._reader:
            if kind is None or issubclass(kind, UserError):  # which a change may be the reason for
                self._reader.check_unchanged(self._state)

    def bytes_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from an offset that has not been forgotten, fewer only at the end."""
        if self.stored.is_plain:
            self._reader.seek(offset)
            return self._reader.read(size)
        missing = offset + size - self._start - len(self._buffer)
        if missing > 0 and self.end is None:
            more = self._reader.read(max(missing, _READ_BYTES))
            self._buffer += more
            if len(more) < max(missing, _READ_BYTES):
                self.end = self._start + len(self._buffer)
        begin = offset - self._start
        return self._buffer[begin : begin + size]

    def forget_before(self, offset: int) -> None:
        """Drop what lies before an offset."""
        offset = min(offset, self._start + len(self._buffer))
        self._buffer = self._buffer[offset - self._start :]
        self._start = offset

    def newly_read(self) -> int:
        """Bytes on disk read since this was last asked."""
        before, self._reported = self._reported, self._reader.stored_bytes_read
        return self._reported - before


def _plain_pieces(part: Part) -> Iterator[Piece]:
    assert part.end is not None
    with _Text(part.input.files[0], part.states[0]) as text:
        start = _border(part.input, text, part.first * PIECE_BYTES)
        for number in range(part.first, part.end):
            stop = _border(part.input, text, (number + 1) * PIECE_BYTES)
            if stop > start:
                yield Piece(part.input, number, (start,), None, stop - start, stop - start, part.states)
            start = stop


def _streamed_pieces(part: Part) -> Iterator[Piece]:
    start, number = 0, 0
    with _Text(part.input.files[0], part.states[0]) as text:
        while text.end is None or start < text.end:
            limit = (number + 1) * PIECE_BYTES
            text.bytes_at(start, max(limit - start, 0))  # all at once: a border is looked for in small steps
            stop = _border(part.input, text, limit)
            if stop > start:
                content = text.bytes_at(start, stop - start)
                yield Piece(
                    *(part.input, number, (start,), (content,), len(content), text.newly_read(), part.states)
                )
            text.forget_before(min(stop, limit))
            start, number = stop, number + 1


def _aligned_pieces(part: Part) -> Iterator[Piece]:
    start, number, num_lines = (0, 0), 0, 0
    with (
        _Text(part.input.files[0], part.states[0]) as first,
        _Text(part.input.files[1], part.states[1]) as second,
    ):
        while first.end is None or start[0] < first.end:
            limit = (number + 1) * (PIECE_BYTES // 2)
            first.bytes_at(start[0], max(limit - start[0], 0))
            stop = _border(part.input, first, limit)
            left = first.bytes_at(start[0], stop - start[0])
            count = left.count(b"\n")
            unfinished = len(left) > 0 and not left.endswith(b"\n")  # the last line of the first file
            right, found = _lines(part.input, second, start[1], count + unfinished)
            if found < count + unfinished:
                raise _unequal(part.input, 1, num_lines + found)
            if left:
                contents = (left, right)
                yield Piece(
                    *(part.input, number, start, contents, len(left) + len(right)),
                    *(first.newly_read() + second.newly_read(), part.states),
                )
            start = stop, start[1] + len(right)
            number, num_lines = number + 1, num_lines + found
            first.forget_before(min(stop, limit))
            second.forget_before(start[1])
        if second.bytes_at(start[1], 1):
            raise _unequal(part.input, 0, num_lines)


def _lines(entry: Input, text: _Text, start: int, count: int) -> tuple[bytes, int]:
    """The next `count` lines of a text, and how many of them there are."""
    size, found = 0, 0
    while found < count:
        content = text.bytes_at(start + size, _READ_BYTES)
        here = content.count(b"\n")
        if found + here >= count:
            place = -1
            for _ in range(count - found):
                place = content.index(b"\n", place + 1)
            return text.bytes_at(start, size + place + 1), count
        size, found = size + len(content), found + here
        if len(content) < _READ_BYTES:
            last = text.bytes_at(start, size)
            return last, found + (len(last) > 0 and not last.endswith(b"\n"))
        if size > PIECE_BYTES + MAX_DOCUMENT_BYTES:
            raise UserError(
                f"{text.stored} has only {found:,} lines within {size:,} bytes after byte {start:,}, where "
                f"{entry.files[0]} has {count:,} in a piece of {PIECE_BYTES // 2:,}: are the two pairs?"
            )
    return b"", 0


def _unequal(entry: Input, shorter: int, num_lines: int) -> UserError:
    return UserError(
        f"{entry.files[shorter]} ends after line {num_lines} and {entry.files[1 - shorter]} goes on: pairs "
        "need files of equally many lines; find the missing one"
    )


def _border(entry: Input, text: _Text, start: int) -> int:
    """The first document border at or after `start`, beyond the beginning; the end where there is none."""
    if start == 0:
        return 0
    pattern, first_byte = _BORDERS.get(entry.format, _LINE_END)
    content, searched = b"", 0
    while True:
        more = text.bytes_at(start + len(content), _READ_BYTES)
        content += more
        if found := pattern.search(content, searched):
            return start + found.end()
        if len(more) < _READ_BYTES:
            assert text.end is not None
            return text.end
        if len(content) > MAX_DOCUMENT_BYTES:
            raise _without_border(entry, text.stored, start)
        begun = content.rfind(first_byte)  # a border that the next bytes may complete
        searched = begun if begun >= 0 else len(content)


def _without_border(entry: Input, stored: StoredText, start: int) -> UserError:
    what = f"{stored} has no %s within {MAX_DOCUMENT_BYTES:,} bytes after byte {start:,}: "
    if entry.format == "blocks":
        return UserError(what % "blank line" + "if its documents are single lines, add --documents lines")
    if entry.format == "tmx":
        return UserError(what % "</tu>" + "is it TMX?")
    return UserError(what % "line end" + "is it text? split it")
