"""Of two runs that are alive in one folder, the later one writes and the earlier one cannot."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
from training.test_checkpoints import StandInEngine
from training.tiny_run import find, run_state

from deltalm_ds.errors import UserError
from deltalm_ds.training import checkpoints, resuming
from deltalm_ds.training import lease as lease_module
from deltalm_ds.training.assembly import claim_for_new
from deltalm_ds.training.checkpoint_folder import fault_of, step_folders
from deltalm_ds.training.checkpoints import CheckpointStore
from deltalm_ds.training.lease import LEASE, Holder, Lease, remove_folder, take_lease, this_process
from deltalm_ds.training.resuming import claim


@pytest.fixture(scope="module", autouse=True)
def group_of_one(tmp_path_factory):
    meeting = tmp_path_factory.mktemp("group") / "file"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_store(folder: Path, lease: Lease | None = None) -> CheckpointStore:
    return CheckpointStore(folder, StandInEngine(), num_kept=3, lease=lease or claim(folder))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LEASE)


def holder(restart: int, step: int = 0) -> Holder:
    return Holder("7", restart, step, "n1", "now")


def test_who_a_process_is(monkeypatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert this_process().job != this_process().job
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert this_process().name == "12-0-0"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert this_process().name == "12-3-1"


def test_the_later_restart_takes_it_and_the_earlier_one_cannot(tmp_path: Path) -> None:
    first, before = take_lease(tmp_path, holder(0))
    assert before is None
    first.check()
    second, before = take_lease(tmp_path, holder(1))
    assert before == holder(0)
    second.check()
    with pytest.raises(
        UserError, match=r"belongs to job 7 \(restart 1\) on n1 now: this run, job 7 \(restart 0"
    ):
        first.check()
    for late in (holder(0), holder(0, step=5)):
        with pytest.raises(UserError, match="restart 1 of job 7 on n1: this is restart 0, which must not"):
            take_lease(tmp_path, late)
    take_lease(tmp_path, holder(1, step=1))
    with pytest.raises(UserError, match="must not go on"):
        take_lease(tmp_path, holder(1))


@pytest.mark.parametrize("content", ["", "[]", '{"job": 1}', "\udcff"])
def test_a_broken_lease_is_one_clear_line(tmp_path: Path, content: str) -> None:
    lease, _ = take_lease(tmp_path, holder(0))
    path = tmp_path / LEASE / "1" / "holder.json"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"holder.json cannot be read .*: remove .* if no run is alive"):
        lease.check()
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        lease.check()
    path.parent.rmdir()
    with pytest.raises(UserError, match="belongs to nobody now"):
        lease.check()


def test_an_earlier_run_writes_no_checkpoint(tmp_path: Path) -> None:
    earlier = make_store(tmp_path)
    earlier.save(run_state(1))
    later = make_store(tmp_path)
    later.load(find(tmp_path))
    with pytest.raises(UserError, match="writes no more"):
        earlier.save(run_state(2))
    with pytest.raises(UserError, match="writes no more"):
        earlier.check_lease()
    later.save(run_state(2))
    (left,) = {*names(tmp_path)} - {"latest", "step_1", "step_2"}
    assert left.startswith("step_2.")  # the earlier run's, empty; the next run removes it
    assert list((tmp_path / left).iterdir()) == []
    claim(tmp_path)
    assert names(tmp_path) == ["latest", "step_1", "step_2"]


def test_what_an_earlier_run_is_writing_cannot_be_committed(tmp_path: Path) -> None:
    earlier = make_store(tmp_path)
    written = earlier.write(earlier.snapshot(run_state(1)))
    said: list[str] = []
    claim(tmp_path, said.append)
    assert "is taken over from job" in said[0]
    assert "removing step_1." in said[1]
    with pytest.raises(UserError, match="writes no more"):
        earlier.commit(written)
    assert names(tmp_path) == []


def test_an_earlier_run_does_not_name_the_latest_any_more(tmp_path: Path) -> None:
    """Where the later run has written the same step, of which the earlier one has nothing left to write."""
    earlier = make_store(tmp_path)
    written = earlier.write(earlier.snapshot(run_state(1)))
    later = make_store(tmp_path)
    later.save(run_state(1))
    later.save(run_state(2))
    with pytest.raises(UserError, match="writes no more"):
        earlier.commit(written)
    assert (tmp_path / "latest").read_text() == "step_2\n"


def test_a_lease_that_is_lost_while_files_are_written(tmp_path: Path, monkeypatch) -> None:
    earlier = make_store(tmp_path)
    original = checkpoints.write_synced

    def replacement(*arguments: Any) -> object:
        claim(tmp_path)
        return original(*arguments)

    monkeypatch.setattr(checkpoints, "write_synced", replacement)
    written = earlier.write(earlier.snapshot(run_state(1)))
    with pytest.raises(UserError, match="writes no more"):
        earlier.commit(written)
    assert names(tmp_path) == []


def test_a_lease_that_is_lost_after_the_commit(tmp_path: Path, monkeypatch) -> None:
    """What was committed belongs to the later run, which has gone on from it when the earlier one wakes."""
    earlier = make_store(tmp_path)
    written = earlier.write(earlier.snapshot(run_state(1)))
    original = checkpoints.fsync_directory

    def replacement(folder: Path) -> None:
        original(folder)
        if folder == tmp_path:
            monkeypatch.setattr(checkpoints, "fsync_directory", original)
            make_store(tmp_path).save(run_state(2))

    monkeypatch.setattr(checkpoints, "fsync_directory", replacement)
    with pytest.raises(UserError, match="writes no more"):
        earlier.commit(written)
    assert names(tmp_path) == ["latest", "step_1", "step_2"]
    assert (tmp_path / "latest").read_text() == "step_2\n"


@pytest.mark.parametrize("moment", ["write_manifest", "fsync_directory"])
def test_a_lease_that_is_lost_within_the_commit(tmp_path: Path, monkeypatch, moment: str) -> None:
    """After the earlier run has looked at the lease and before it renames its folder."""
    earlier = make_store(tmp_path)
    written = earlier.write(earlier.snapshot(run_state(1)))
    original = getattr(checkpoints, moment)

    def replacement(*arguments: object) -> None:
        claim(tmp_path)
        original(*arguments)

    monkeypatch.setattr(checkpoints, moment, replacement)
    with pytest.raises(UserError, match="writes no more"):
        earlier.commit(written)
    assert names(tmp_path) == []


def test_a_checkpoint_that_comes_while_the_next_run_looks_is_found(tmp_path: Path, monkeypatch) -> None:
    earlier = make_store(tmp_path)
    earlier.save(run_state(1))
    original = resuming.take_lease

    def replacement(*arguments: object) -> object:
        earlier.save(run_state(2))
        return original(*arguments)

    monkeypatch.setattr(resuming, "take_lease", replacement)
    assert find(tmp_path).state.step == 2


def test_an_earlier_run_that_takes_the_lease_too_late(tmp_path: Path, monkeypatch) -> None:
    """It has looked who had the lease, and the later one comes before it writes its own."""
    take_lease(tmp_path, holder(0))
    original, late = lease_module.write_text_atomically, holder(1)

    def replacement(*arguments: object) -> None:
        monkeypatch.setattr(lease_module, "write_text_atomically", original)
        original(*arguments)
        take_lease(tmp_path, holder(2))

    monkeypatch.setattr(lease_module, "write_text_atomically", replacement)
    with pytest.raises(UserError, match="restart 2 of job 7 on n1: this is restart 1, which must not"):
        take_lease(tmp_path, late)
    assert [path.name for path in (tmp_path / LEASE).iterdir()] == ["2"]


def test_of_runs_that_come_at_once_one_may_write(tmp_path: Path) -> None:
    holders = [Holder(str(job), 0, 0, "n1", "now") for job in range(8)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda one: take_lease(tmp_path, one), holders))
    in_force = 0
    for lease, _ in taken:
        with contextlib.suppress(UserError):
            lease.check()
            in_force += 1
    assert in_force == 1


def test_a_new_run_does_not_begin_over_a_checkpoint_that_came_meanwhile(tmp_path: Path) -> None:
    settings: Any = SimpleNamespace(resume_if_begun=True)
    claim_for_new(tmp_path, settings)
    make_store(tmp_path).save(run_state(1))
    with pytest.raises(SystemExit) as ended:
        claim_for_new(tmp_path, settings)
    assert ended.value.code == 85


def test_a_mistaken_resume_leaves_the_run_its_lease(tmp_path: Path) -> None:
    running = make_store(tmp_path)
    running.save(run_state(1))
    with pytest.raises(UserError, match="another model"):
        find(tmp_path, model_config={"width": 1})
    running.save(run_state(2))


def test_two_runs_that_save_at_full_speed(tmp_path: Path) -> None:
    """Whatever the moment of the change: what the earlier run committed is whole, and it commits no more."""

    def save_for_ever(store: CheckpointStore, steps: list[int], ends: list[Exception]) -> None:
        while True:
            try:
                store.save(run_state(len(steps) + 1))
            except Exception as error:
                ends.append(error)
                return
            steps.append(len(steps) + 1)

    for attempt in range(20):
        folder = tmp_path / str(attempt)
        steps: list[int] = []
        ends: list[Exception] = []
        thread = threading.Thread(target=save_for_ever, args=[make_store(folder), steps, ends])
        thread.start()
        while not steps:
            pass
        later = make_store(folder)
        found = step_folders(folder)
        assert fault_of(found[0]) is None
        thread.join()
        (end,) = ends
        assert isinstance(end, UserError), repr(end)
        assert "writes no more" in str(end)
        left = step_folders(folder)
        assert left[0] == found[0]
        assert {*left} <= {*found}, "it may only have removed what is too old"
        later.save(run_state(1000))


def test_folders_go_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    remove_folder(tmp_path / "folder")
    remove_folder(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_the_file_says_who(tmp_path: Path) -> None:
    take_lease(tmp_path, holder(2))
    assert json.loads((tmp_path / LEASE / "1" / "holder.json").read_text()) == {
        "job": "7",
        "restart": 2,
        "step": 0,
        "host": "n1",
        "since": "now",
    }
