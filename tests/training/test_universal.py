from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import Outcome, run_distributed
from training.tiny_run import TinyRun, find, new_store, resume

from deltalm_ds.errors import UserError
from deltalm_ds.training.checkpoint_folder import (
    MANIFEST,
    fault_of,
    read_run_state,
    record_files,
    write_manifest,
)
from deltalm_ds.training.distributed import join_processes

CASES = [(1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (3, "bf16"), (2, "fp16")]
STAGE_CHANGES = [(old, new) for old in (1, 2, 3) for new in (1, 2, 3) if old != new]
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 2e-3}


def case_name(stage: int, dtype: str) -> str:
    return f"zero{stage}-{dtype}"


def train_through(root: str) -> dict[str, list[float]]:
    """Seven steps of every case without a stop, with a checkpoint at step 3; losses of steps 3 to 6."""
    join_processes()
    losses = {}
    for stage, dtype in CASES:
        run = TinyRun(stage, dtype)
        run.train(3, overflow_at=1 if dtype == "fp16" else None)
        new_store(Path(root) / case_name(stage, dtype), run).save(run.state())
        losses[case_name(stage, dtype)] = run.train(4)
    return losses


def train_alone(root: str) -> dict[str, Any]:
    """Two steps of every case in one process, then a checkpoint; a malicious checkpoint."""
    join_processes()
    results: dict[str, Any] = {}
    for stage, dtype in CASES:
        run, store, resumable = resume(Path(root) / case_name(stage, dtype), stage, dtype)
        losses = run.train(2)
        store.save(run.state())
        results[case_name(stage, dtype)] = [losses, resumable.needs_universal, run.engine.skipped_steps]
    results["malicious"] = []
    for directory in sorted(Path(root).glob("malicious-*")):
        try:
            resume(directory, 2, "fp32")
        except UserError as error:
            results["malicious"].append(str(error))
    return results


def train_together_again(root: str) -> dict[str, Any]:
    """Two more steps of every case in two processes, then every change of stage from step 3."""
    join_processes()
    results: dict[str, Any] = {}
    for stage, dtype in CASES:
        run, _, resumable = resume(Path(root) / case_name(stage, dtype), stage, dtype)
        results[case_name(stage, dtype)] = [run.train(2), resumable.needs_universal, resumable.state.step]
    for old, new in STAGE_CHANGES:
        run, _, resumable = resume(Path(root) / f"copy-of-zero{old}", new, "fp32")
        settings = [[group["weight_decay"], group["lr"]] for group in run.engine.optimizer.param_groups]
        results[f"{old}to{new}"] = [settings, run.train(4), _steps_counted(run)]
    try:
        resume(Path(root) / "malicious-plain", 2, "fp32")
    except UserError as error:
        results["malicious"] = str(error)
    return results


def _steps_counted(run: TinyRun) -> list[float]:
    optimizer = run.engine.optimizer.optimizer
    return [float(state["step"]) for state in optimizer.state.values()]


class Malicious:
    """Makes a folder when unpickled without restriction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def tamper(folder: Path, pattern: str, trace: Path) -> None:
    """Put code into one file of a checkpoint and its new hash into the manifest."""
    path = next(folder.glob(pattern))
    state = torch.load(path, weights_only=False)
    torch.save({**state, "more": Malicious(trace)}, path)
    names = [each.name for each in folder.iterdir() if each.name != MANIFEST]
    write_manifest(folder, record_files(folder, names))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("universal")


@pytest.fixture(scope="module")
def through(root: Path) -> list[Outcome]:
    outcomes = run_distributed(train_through, 2, root=str(root))
    for stage in (1, 2, 3):
        shutil.copytree(root / f"zero{stage}-fp32", root / f"copy-of-zero{stage}")
    for name, pattern in (("plain", "*rank_1*optim_states.pt"), ("model", "mp_rank_00*")):
        shutil.copytree(root / "zero2-fp32", root / f"malicious-{name}")
        tamper(root / f"malicious-{name}" / "step_3", pattern, root / "trace")
    return outcomes


@pytest.fixture(scope="module")
def alone(root: Path, through: list[Outcome]) -> Outcome:
    return run_distributed(train_alone, 1, root=str(root))[0]


@pytest.fixture(scope="module")
def together_again(root: Path, alone: Outcome) -> list[Outcome]:
    return run_distributed(train_together_again, 2, root=str(root))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "dtype"), CASES)
def test_two_processes_one_and_two_again(
    stage: int, dtype: str, through: list[Outcome], alone: Outcome, together_again: list[Outcome]
) -> None:
    name = case_name(stage, dtype)
    expected = pytest.approx(through[0].value[name], rel=TOLERANCE[dtype])
    losses_alone, converted, skipped = alone.value[name]
    losses_again, converted_again, step = together_again[0].value[name]
    assert losses_alone + losses_again == expected
    assert converted
    assert converted_again
    assert step == 5
    assert skipped == (1 if dtype == "fp16" else 0)
    assert f"converting step_3 from ZeRO {stage} on 2 processes for ZeRO {stage} on 1" in alone.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), STAGE_CHANGES)
def test_the_stage_may_change(
    old: int, new: int, through: list[Outcome], together_again: list[Outcome]
) -> None:
    settings, losses, steps = together_again[0].value[f"{old}to{new}"]
    assert losses == pytest.approx(through[0].value[case_name(old, "fp32")], rel=1e-5)
    assert [decay for decay, _ in settings] == [0.3, 0.0]
    assert [rate for _, rate in settings] == pytest.approx([0.05 / 4, 0.05 / 4])
    assert set(steps) == {7.0}


@pytest.mark.slow
def test_no_code_of_a_checkpoint_runs(root: Path, alone: Outcome, together_again: list[Outcome]) -> None:
    messages = [*alone.value["malicious"], together_again[1].value["malicious"]]
    assert len(messages) == 3
    assert all("is refused, for loading it could run code" in message for message in messages)
    assert not (root / "trace").exists()
    assert not list(root.glob("malicious-*/*.universal*"))


@pytest.mark.slow
def test_a_conversion_is_whole_and_used_again_unless_its_source_changed(
    root: Path, alone: Outcome, tmp_path: Path
) -> None:
    folder = root / "zero2-fp32" / "step_3"
    converted = folder.with_name("step_3.universal")
    assert fault_of(converted) is None
    assert read_run_state(converted) == read_run_state(folder)
    weights = torch.load(converted / "zero" / "hidden.weight" / "fp32.pt", weights_only=True)["param"]
    assert weights.shape == (10, 10)
    assert not any(path.name.endswith(".tmp") for path in folder.parent.iterdir())

    shutil.copytree(folder, tmp_path / "step_3")
    meeting = tmp_path / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    try:
        result = tmp_path / "step_3.universal"
        first = _converted_at(tmp_path)
        assert _converted_at(tmp_path) == first
        (result / "zero" / "hidden.weight" / "fp32.pt").write_bytes(b"")
        second = _converted_at(tmp_path)
        assert second != first
        assert fault_of(result) is None
        manifest = tmp_path / "step_3" / "manifest.json"
        manifest.write_text(manifest.read_text() + "\n")
        assert _converted_at(tmp_path) != second
    finally:
        dist.destroy_process_group()


def _converted_at(directory: Path) -> int:
    folder = find(directory, zero_stage=2).loaded_folder
    return (folder / "manifest.json").stat().st_mtime_ns
