"""The lines of a stored text, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

from deltalm_ds.errors import UserError
from deltalm_ds.text.stored import StoredText, TextReader

MAX_LINE_BYTES = 4 << 20
"""A longer line is taken for a mistake: memory is bounded by it."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_READ_BYTES = 1 << 20


def read_lines(stored: StoredText) -> Iterator[str]:
    """The lines of a file without their ends, in order; a byte order mark is left out.

    UserError for a file that cannot be read, and, with its number, for a line that is not UTF-8 or is longer
    than MAX_LINE_BYTES.
    """
    rest, num_lines = b"", 0
    with TextReader(stored) as reader:
        while content := reader.read(_READ_BYTES):
            if num_lines == 0 and not rest:
                content = content.removeprefix(_BYTE_ORDER_MARK)
            complete, found, unfinished = content.rpartition(b"\n")
            if not found:
                rest += unfinished
            else:
                lines = _decoded(stored, rest + complete, num_lines)
                yield from lines
                num_lines, rest = num_lines + len(lines), unfinished
            if len(rest) > MAX_LINE_BYTES:
                raise _too_long(stored, num_lines + 1)
    if rest:
        yield from _decoded(stored, rest, num_lines)


def _decoded(stored: StoredText, content: bytes, num_before: int) -> list[str]:
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = num_before + 1 + content.count(b"\n", 0, error.start)
        raise UserError(
            f"{stored}, line {number:,}, is not UTF-8: convert the file, with iconv for example"
        ) from None
    if len(content) > MAX_LINE_BYTES:
        for number, line in enumerate(lines, num_before + 1):
            if len(line) > MAX_LINE_BYTES // 4 and len(line.encode()) > MAX_LINE_BYTES:
                raise _too_long(stored, number)
    return lines


def _too_long(stored: StoredText, number: int) -> UserError:
    return UserError(
        f"{stored}, line {number:,}, is longer than {MAX_LINE_BYTES:,} bytes: is it text with line "
        "ends? split it"
    )
