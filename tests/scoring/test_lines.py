"""Line-aligned files."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.lines import read_aligned, read_lines, references_by_example


def written(folder: Path, *contents: bytes) -> list[Path]:
    paths = [folder / f"file{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        ("\ufeffa\n b \n".encode(), ["a", " b "]),
        ("a\u2028b\x0bc\n".encode(), ["a\u2028b\x0bc"]),  # ends of lines elsewhere, not here
        (b"", []),
        (b"\n", [""]),
    ],
)
def test_lines(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    assert read_lines(*written(tmp_path, content)) == lines


def test_last_line_that_is_empty(tmp_path: Path) -> None:
    """Where the files' last lines have no ends, an empty one has no character at all."""
    paths = written(tmp_path, b"a\nb", b"c\n")
    assert read_aligned(paths) == [["a", "b"], ["c", ""]]
    assert read_aligned(written(tmp_path, b"a\nb", b"c\nd\n")) == [["a", "b"], ["c", "d"]]


def test_unequal_lengths(tmp_path: Path) -> None:
    first, second = written(tmp_path, b"a\nb\n", b"c\n")
    with pytest.raises(UserError, match=f"{first} has 2 lines and {second} 1:"):
        read_aligned([first, second])


def test_not_utf8(tmp_path: Path) -> None:
    (path,) = written(tmp_path, b"a\nb\xe9\n")
    with pytest.raises(UserError, match=f"{path} is not UTF-8 at line 2, byte offset 3"):
        read_lines(path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing: No such file"):
        read_lines(tmp_path / "nothing")


def test_references_with_gaps() -> None:
    paths = [Path("one"), Path("two")]
    files = [["a", " ", "c"], ["", "b", "d"]]
    assert references_by_example(paths, files) == [("a",), ("b",), ("c", "d")]
    with pytest.raises(UserError, match="line 2 of one and two is blank"):
        references_by_example(paths, [["a", " "], ["", ""]])
