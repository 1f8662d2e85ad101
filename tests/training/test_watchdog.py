from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import DistributedRun, Outcome, run_distributed
from hanging_runs import (
    LIMIT,
    compile_for_ever,
    fork_and_leave,
    hang_in_deepspeed,
    hang_with_the_disk,
    hold_the_lock,
    lose_rank_0,
    run_slowly,
    save_for_ever,
    sleep_in_python,
    sleep_with_a_slow_store,
    sleep_with_time_left,
    swallow_an_error,
    wait_to_be_stopped,
)
from torch.distributed.flight_recorder.components.loader import read_dump

from deltalm_ds.training.watchdog import Watchdog
from deltalm_ds.training.watchdog_settings import WatchdogSettings


def hang(
    function: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    others_seconds: float = 60,
    **arguments: Any,
) -> list[Outcome]:
    """The outcomes of two ranks, the second of which to end has `others_seconds` for it."""
    monkeypatch.setattr("distributed._SECONDS_FOR_THE_OTHERS", others_seconds)
    return run_distributed(function, 2, timeout=120, expect_failure=True, **arguments)


def lines(outcomes: list[Outcome]) -> list[str]:
    """What the watchdogs of all ranks have printed."""
    return [line for one in outcomes for line in one.stderr.splitlines() if line.startswith("hang:")]


def files(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "hang").glob("*.txt"))


def test_a_rank_that_sleeps_is_named_and_all_leave_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = hang(sleep_in_python, monkeypatch, output=str(tmp_path))
    assert [one.returncode for one in outcomes] == [85, 85]
    (line,) = lines(outcomes)
    assert line in outcomes[0].stderr
    assert "rank 1 on" in line
    assert "(limit 3 s) in step 4, micro-batch 1, at sleep_for_ever (training/hanging_runs.py:" in line
    assert "1 collective behind" in line
    assert line.endswith(f"Stacks: {tmp_path}/hang/step_4-rank_*.txt")
    assert files(tmp_path) == ["step_4-rank_0.txt", "step_4-rank_1.txt", "step_4.txt"]
    waiting, sleeping = ((tmp_path / "hang" / f"step_4-rank_{rank}.txt").read_text() for rank in (0, 1))
    assert "in all_reduce" in waiting
    assert "in sleep_in_python" in waiting
    assert "in sleep_for_ever" in sleeping
    assert "sleep_for_ever" in (tmp_path / "hang" / "step_4.txt").read_text()
    assert "Traceback" not in outcomes[0].stderr + outcomes[1].stderr
    records = tmp_path / "hang" / "step_4-collectives"
    begun = [read_dump("rank_", str(records / f"rank_{rank}"))["entries"] for rank in (0, 1)]
    assert [[entry["profiling_name"] for entry in entries] for entries in begun] == [
        ["gloo:all_reduce"] * 4,
        ["gloo:all_reduce"] * 3,
    ]


def test_one_overdue_rank_ends_those_that_have_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = hang(sleep_with_time_left, monkeypatch, output=str(tmp_path))
    assert [one.returncode for one in outcomes] == [85, 85]
    (line,) = lines(outcomes)
    assert "rank 1 on" in line
    assert "(limit 100 s) in the validation after step 3, batch 1, at sleep_for_ever" in line
    assert files(tmp_path) == ["step_4-rank_0.txt", "step_4-rank_1.txt", "step_4.txt"]


@pytest.mark.slow
def test_what_a_rank_posted_before_does_not_undo_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = lines(hang(sleep_with_a_slow_store, monkeypatch, output=str(tmp_path)))
    assert line.endswith("-rank_*.txt")
    assert "does not run" not in line


def test_a_rank_that_swallowed_an_error_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = hang(swallow_an_error, monkeypatch, 0.5, output=str(tmp_path))
    assert outcomes[0].returncode == 85
    (line,) = lines(outcomes)
    assert "rank 1 on" in line
    assert "having left training after step 3" in line
    assert "1 collective behind" in line
    assert files(tmp_path) == ["step_4-rank_0.txt", "step_4.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_holds_the_interpreter_is_named_and_ended(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = hang(hold_the_lock, monkeypatch, output=str(tmp_path), rank=rank)
    other = 1 - rank
    assert [outcomes[rank].returncode, outcomes[other].returncode] == [1, 85]
    (line,) = lines(outcomes)
    assert line in outcomes[other].stderr
    assert f"rank {rank} on" in line
    assert "its Python does not run" in line
    assert files(tmp_path) == [f"held-rank_{rank}.txt", f"step_4-rank_{other}.txt", "step_4.txt"]
    stacks = (tmp_path / "hang" / f"held-rank_{rank}.txt").read_text()
    assert stacks.count("in hold_the_lock") == 2


@pytest.mark.slow
def test_a_slow_run_is_left_alone(tmp_path: Path) -> None:
    outcomes = run_distributed(run_slowly, 2, output=str(tmp_path), seconds=LIMIT + 3)
    assert [one.returncode for one in outcomes] == [0, 0]
    assert lines(outcomes) == []
    assert list(tmp_path.iterdir()) == []


def test_the_start_has_its_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = hang(compile_for_ever, monkeypatch, output=str(tmp_path))
    assert [one.returncode for one in outcomes] == [85, 85]
    (line,) = lines(outcomes)
    assert "rank 0 on" in line
    assert "(limit 1 s) in step 1, micro-batch 1" in line


def test_saving_has_its_own_limit_and_old_stacks_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "hang" / "step_3-rank_0.txt"
    old.parent.mkdir()
    old.write_text("old")
    outcomes = hang(save_for_ever, monkeypatch, output=str(tmp_path))
    assert [one.returncode for one in outcomes] == [85, 85]
    (line,) = lines(outcomes)
    assert "(limit 1 s) saving after step 3, at sleep_for_ever" in line
    assert "hang/step_3.2-rank_*.txt" in line
    assert old.read_text() == "old"
    assert files(tmp_path)[1:3] == ["step_3.2-rank_0.txt", "step_3.2-rank_1.txt"]


def test_a_disk_that_hangs_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = hang(hang_with_the_disk, monkeypatch, output=str(tmp_path))
    assert [one.returncode for one in outcomes] == [85, 85]
    (line,) = lines(outcomes)
    assert "rank 1 on" in line


@pytest.mark.parametrize(("number", "others_seconds"), [(signal.SIGKILL, 60), (signal.SIGSTOP, 0.5)])
def test_a_rank_whose_store_is_dead_leaves_by_itself(
    number: int, others_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = hang(lose_rank_0, monkeypatch, others_seconds, output=str(tmp_path), number=int(number))
    assert outcomes[1].returncode == 85
    (line,) = lines(outcomes)
    assert "rank 1 on" in line
    assert line.endswith("The other ranks' store does not answer")
    assert "step_4-rank_1.txt" in files(tmp_path)


def test_a_stopped_run_is_not_a_hanging_one(tmp_path: Path) -> None:
    run = DistributedRun(wait_to_be_stopped, 2, {"output": str(tmp_path)})
    try:
        deadline = time.monotonic() + 60
        while len(pids := list(tmp_path.glob("pid_*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for path in pids:
                os.kill(int(path.name.removeprefix("pid_")), number)
            if number == signal.SIGSTOP:
                time.sleep(2 * LIMIT)
        (tmp_path / "go on").touch()
        outcomes = run.wait(60)
    finally:
        run.kill()
    assert [one.value for one in outcomes] == ["done", "done"]
    assert lines(outcomes) == []


def test_children_end_as_ever(tmp_path: Path) -> None:
    (outcome,) = run_distributed(fork_and_leave, 1, output=str(tmp_path))
    assert outcome.value == [0, 0]


def test_no_watchdog_leaves_no_trace(tmp_path: Path) -> None:
    settings = WatchdogSettings(no_watchdog=True, watchdog_start_seconds=0.01)
    threads = threading.active_count()
    with Watchdog(
        tmp_path,
        store=dist.HashStore(),
        rank=0,
        world_size=1,
        device=torch.device("cpu"),
        settings=settings,
    ) as watchdog:
        watchdog.progress("step")
        watchdog.finished_step()
        assert threading.active_count() == threads
        assert list(tmp_path.iterdir()) == []


def test_the_usual_step_is_the_median_without_the_first_and_without_other_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    watchdog = Watchdog(
        tmp_path,
        store=dist.HashStore(),
        rank=0,
        world_size=1,
        device=torch.device("cpu"),
        settings=WatchdogSettings(),
    )
    for seconds in (50.0, 1.0, 1.0, 9.0, 2.0, 2.0):
        for part in (0.25, 0.75):
            watchdog.progress("step")
            now += part * seconds
        watchdog.finished_step()
        watchdog.progress("save")
        now += 1000.0
    assert watchdog._usual_step == 2.0
    monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_rank_that_hangs_in_a_step_of_deepspeed_is_named(
    stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = hang(hang_in_deepspeed, monkeypatch, output=str(tmp_path), stage=stage)
    assert [one.returncode for one in outcomes] == [85, 85]
    (line,) = lines(outcomes)
    assert "rank 1 on" in line
    assert "at sleep_for_ever" in line
    assert "behind" in line
    assert "if at all" not in line
