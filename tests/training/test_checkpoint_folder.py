from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.training.checkpoint_folder import (
    LATEST,
    MANIFEST,
    RunState,
    differences,
    fault_of,
    newest_whole,
    read_run_state,
    record_files,
    step_folders,
    write_manifest,
    write_run_state,
)

STATE = RunState(
    step=7,
    next_position=56,
    world_size=2,
    zero_stage=1,
    dtype="bf16",
    fingerprint={"data": "abc"},
    model_config={"width": 8},
    settings={"seed": 3},
    monitoring={"totals": [0.1]},
)


def make_checkpoint(directory: Path, step: int) -> Path:
    folder = directory / f"step_{step}"
    folder.mkdir(parents=True)
    (folder / "weights.pt").write_bytes(bytes(range(256)) * 8)
    records = write_run_state(folder, dataclasses.replace(STATE, step=step))
    write_manifest(folder, {**records, **record_files(folder, ["weights.pt"])})
    (directory / LATEST).write_text(folder.name)
    return folder


def test_run_state_round_trip(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 7)
    assert fault_of(folder) is None
    assert read_run_state(folder) == STATE
    assert json.loads((folder / "config.json").read_text()) == STATE.model_config


def truncate(folder: Path) -> None:
    path = folder / "weights.pt"
    path.write_bytes(path.read_bytes()[:1234])


def flip_bit(folder: Path) -> None:
    path = folder / "weights.pt"
    content = bytearray(path.read_bytes())
    content[1000] ^= 4
    path.write_bytes(content)


def remove_file(folder: Path) -> None:
    (folder / "weights.pt").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def truncate_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text()[:100])


def empty_manifest(folder: Path) -> None:
    write_manifest(folder, {})


def change_step(folder: Path) -> None:
    path = folder / "run.json"
    path.write_text(path.read_text().replace('"step": 30', '"step": 31'))


BREAKS = {
    truncate: "weights.pt has 1,234 bytes, manifest says 2,048",
    flip_bit: "weights.pt differs from its hash in the manifest",
    remove_file: "weights.pt is missing",
    remove_manifest: "manifest.json is missing",
    truncate_manifest: "manifest.json cannot be read",
    empty_manifest: "manifest.json cannot be read: run.json is not in it",
    change_step: "run.json differs from its hash in the manifest",
}


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda break_it: break_it.__name__)
def test_a_broken_checkpoint_is_passed_over_with_its_reason(tmp_path: Path, break_it) -> None:
    whole, broken = make_checkpoint(tmp_path, 9), make_checkpoint(tmp_path, 30)
    break_it(broken)
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == (whole, ("step_30",))
    assert len(said) == 1
    assert said[0].startswith(f"step_30 passed over: {BREAKS[break_it]}")


def test_newest_goes_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        make_checkpoint(tmp_path, step)
    (tmp_path / "step_1000.tmp").mkdir()
    (tmp_path / "step_100.universal").mkdir()
    (tmp_path / "step_2000").write_text("a file")
    assert [folder.name for folder in step_folders(tmp_path)] == ["step_100", "step_20", "step_9"]
    said: list[str] = []
    assert newest_whole(tmp_path, said.append)[0].name == "step_100"
    assert said == []


@pytest.mark.parametrize("latest", [None, "step_50", ""])
def test_latest_is_not_needed(tmp_path: Path, latest: str | None) -> None:
    folder = make_checkpoint(tmp_path, 9)
    (tmp_path / LATEST).unlink()
    if latest is not None:
        (tmp_path / LATEST).write_text(latest)
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == (folder, ())
    assert len(said) == 1
    assert said[0].startswith("latest is missing" if latest is None else f"latest names '{latest}'")


def test_nothing_whole_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is none"):
        newest_whole(tmp_path / "absent", print)
    truncate(make_checkpoint(tmp_path, 9))
    with pytest.raises(UserError, match="of step_9 none is whole"):
        newest_whole(tmp_path, print)


def test_differences_name_nested_fields() -> None:
    saved = {"width": 256, "data": {"sha": "a" * 100, "size": 1}, "gone": 1, "tuple": (1, 2)}
    current = {"width": 512, "data": {"sha": "b" * 100, "size": 1}, "tuple": [1, 2]}
    found = differences(saved, current)
    assert "width is 256 there, 512 here" in found
    assert "data.sha is" in found
    assert "gone is 1 there, null here" in found
    assert "size" not in found
    assert "tuple" not in found
    assert len(found) < 250
    assert differences(saved, saved) == ""


def test_many_differences_are_counted() -> None:
    saved, current = (
        {"mixture": {f"x{number:02}": change * number for number in range(30)}} for change in (1, 2)
    )
    found = differences(saved, current)
    assert found.startswith("mixture.x01 is 1 there, 2 here, ")
    assert found.endswith("mixture.x08 is 8 there, 16 here, and 21 more")
