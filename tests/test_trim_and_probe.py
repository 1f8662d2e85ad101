"""The commands trim and probe, from their options on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trim_samples import LINES, write_model

from deltalm_ds import probe, trim
from deltalm_ds.commands import run


def called(
    name: str, main: Callable[[], None], arguments: list[object], monkeypatch: pytest.MonkeyPatch
) -> object:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run(name, main)
    return stopped.value.code


def test_trim_and_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, small = write_model(tmp_path / "model", is_tuned=False), tmp_path / "small"
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES[:40]))
    arguments = [model, small, "--text", text, text, "--samples", 2]
    assert called("trim", trim.main, arguments, monkeypatch) == 0
    assert f"written: {small}" in capsys.readouterr().out
    assert called("trim", trim.main, arguments, monkeypatch) == 2
    assert capsys.readouterr().err.endswith("exists already; remove it or name another target\n")

    arguments = [small, "--text", text, "--samples", 2, "--window", 16, "--json"]
    assert called("probe", probe.main, arguments, monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["window_length"] == 16
    assert called("probe", probe.main, [*arguments, "--sentinels", 50], monkeypatch) == 2
    assert "no room for 50 sentinels" in capsys.readouterr().err
