"""Line-aligned files: line i of every file belongs to the same example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deltalm_ds.errors import UserError

_BYTE_ORDER_MARK = "\ufeff"


def read_aligned(paths: Sequence[Path]) -> list[list[str]]:
    """The lines of every file, without their ends.

    UserError where a file cannot be read, is not UTF-8, or has not as many lines as the first.
    """
    texts = [_read(path) for path in paths]
    # Without an end, a last line that is empty shows only beside the last lines of other files.
    same_ends = len({text.count("\n") for text in texts}) == 1
    last_is_unended = same_ends and any(text and not text.endswith("\n") for text in texts)
    files = [_lines(text, last_is_unended) for text in texts]
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(files[0]):
            raise UserError(
                f"{paths[0]} has {len(files[0]):,} lines and {path} {len(lines):,}: "
                "line i of both must be of the same example"
            )
    return files


def read_lines(path: Path) -> list[str]:
    """The lines of one file; errors as of `read_aligned`."""
    return read_aligned([path])[0]


def references_by_example(paths: Sequence[Path], files: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The references of every example from the lines of `paths`; a blank line is none.

    UserError where an example has no reference at all.
    """
    examples = [tuple(text for text in texts if text.strip()) for texts in zip(*files, strict=True)]
    for number, texts in enumerate(examples, start=1):
        if not texts:
            where = " and ".join(map(str, paths))
            raise UserError(
                f"line {number:,} of {where} is blank, so it has no reference: remove it from all files"
            )
    return examples


def _lines(text: str, last_is_unended: bool) -> list[str]:
    lines = text.split("\n")
    if not last_is_unended and not lines[-1]:
        lines.pop()  # what is behind the last line end
    return [line.removesuffix("\r") for line in lines]


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name a file that can be read") from None
    try:
        return content.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 at line {line:,}, byte offset {error.start:,}: convert it, with iconv"
        ) from None
