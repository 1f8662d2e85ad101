"""How far work is, in a log."""

from __future__ import annotations

import pytest

from deltalm_ds import progress
from deltalm_ds.progress import Progress
from deltalm_ds.ranks import Ranks


def test_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress("encoding", 4_000_000, Ranks(), done=1_000_000) as shown:
        shown.update(1_000_000)
        shown.update(1_000_000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "encoding: 50 % of 4.00MB",
        "encoding: 75 % of 4.00MB",
    ]
    assert all("B/s" in line and line.endswith(" left") for line in lines)


def test_without_a_total_and_with_what_was_done_before(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress("reading", None, Ranks()) as shown:
        shown.skip(2_000_000)
        shown.update(1_000_000)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reading: 3.00MB, ")
    assert "%" not in line


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("encoding", 100, Ranks()) as shown:
        shown.update(100)
    assert capsys.readouterr().err == ""
