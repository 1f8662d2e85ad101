"""Lines are those of the file, however it is stored and read, and what is wrong in one is told by number."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_files import COMPRESS, write

from deltalm_ds.downstream import lines as lines_module
from deltalm_ds.downstream.lines import read_lines
from deltalm_ds.errors import UserError
from deltalm_ds.text.stored import StoredText

LINES = st.lists(st.text(st.characters(exclude_characters="\n\ufeff", exclude_categories=["Cs"]), max_size=8))


@pytest.fixture(params=[1, 2, 5, 1 << 20])
def read_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(lines_module, "_READ_BYTES", request.param)
    return request.param


@given(LINES, st.booleans())
def test_lines_are_those_written(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.en"
    end = end or (bool(lines) and not lines[-1])
    path.write_bytes("\n".join(lines).encode() + (b"\n" if end and lines else b""))
    for size in (1, 3, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lines_module, "_READ_BYTES", size)
            assert list(read_lines(StoredText(path))) == lines


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_and_byte_order_marks(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.en{suffix}", "\ufeffone\r\n\ntwo é")
    assert list(read_lines(StoredText(path))) == ["one\r", "", "two é"]


def test_what_is_not_utf_8_is_told_by_line(tmp_path: Path, read_bytes: int) -> None:
    path = write(tmp_path / "a.en", "é\n\nx\n".encode() + b"caf\xe9 x\ny\n")
    with pytest.raises(UserError, match=r"a\.en, line 4, is not UTF-8"):
        list(read_lines(StoredText(path)))


def test_an_over_long_line_is_told_by_number(
    tmp_path: Path, read_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 100)
    fits, too_long = "é" * 50, "é" * 50 + "x"
    assert list(read_lines(StoredText(write(tmp_path / "a.en", f"a\n{fits}\nb\n")))) == ["a", fits, "b"]
    for content in (f"a\n{fits}\n{too_long}\n", f"a\n{fits}\n{too_long}"):
        with pytest.raises(UserError, match=r"line 3, is longer than 100 bytes"):
            list(read_lines(StoredText(write(tmp_path / "a.en", content))))
