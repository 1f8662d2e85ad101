from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import DistributedRun, Outcome, run_distributed
from tiny_run import TinyRun
from torch.distributed.flight_recorder.components.loader import read_dump

from deltalm_ds.training import watchdog as module
from deltalm_ds.training.distributed import join_processes
from deltalm_ds.training.hang_report import Standing
from deltalm_ds.training.hang_store import HangStore
from deltalm_ds.training.watchdog import Watchdog
from deltalm_ds.training.watchdog_settings import WatchdogSettings

LIMIT = 3.0


def watched(output: str, **more: Any) -> Watchdog:
    """A watchdog over this process, which has joined the others over gloo."""
    process = join_processes()
    limits = {f"watchdog_{name}_seconds": 100.0 for name in ("start", "validation", "save")}
    limits |= {"watchdog_least_seconds": LIMIT, "watchdog_step_factor": 1.0}
    return Watchdog(
        Path(output),
        store=dist.distributed_c10d._get_default_store(),
        rank=process.rank,
        world_size=process.world_size,
        device=process.device,
        settings=WatchdogSettings(**limits | more),
    )


def train(watchdog: Watchdog, steps: int, micro_batches: int = 2) -> None:
    for _ in range(steps):
        for _ in range(micro_batches):
            watchdog.progress("step")
            time.sleep(0.01)
        dist.all_reduce(torch.ones(1))
        watchdog.finished_step()


def sleep_for_ever() -> None:
    time.sleep(500)


def sleep_in_python(output: str) -> None:
    with watched(output) as watchdog:
        train(watchdog, 3)
        watchdog.progress("step")
        if dist.get_rank() == 1:
            sleep_for_ever()
        dist.all_reduce(torch.ones(1))


def swallow_an_error(output: str) -> None:
    with watched(output) as watchdog:
        train(watchdog, 3)
        try:
            watchdog.progress("step")
            if dist.get_rank() == 1:
                raise ValueError("nobody will know")
            dist.all_reduce(torch.ones(1))
        except ValueError:
            pass
    sleep_for_ever()  # what it does instead keeps gloo's connections open


def sleep_with_time_left(output: str) -> None:
    with watched(output) as watchdog:
        train(watchdog, 3)
        if dist.get_rank() == 1:
            watchdog.progress("validation")
            sleep_for_ever()
        watchdog.progress("step")
        dist.all_reduce(torch.ones(1))


def sleep_with_a_slow_store(output: str) -> None:
    post, report = HangStore.post, HangStore.report

    def post_late(store: HangStore, standing: Standing) -> None:
        if not standing.has_answered:
            time.sleep(LIMIT + 2)
        post(store, standing)

    def report_late(*arguments: Any) -> None:
        time.sleep(LIMIT + 2)
        report(*arguments)

    HangStore.post, HangStore.report = post_late, report_late  # type: ignore[method-assign]
    sleep_in_python(output)


def hold_the_lock(output: str, rank: int) -> None:
    module._ANSWER_SECONDS, module._END_SECONDS = 4.0, 15.0
    with watched(output) as watchdog:
        train(watchdog, 3)
        watchdog.progress("validation")
        time.sleep(2.5)  # until its standing is posted
        watchdog.progress("step")
        if dist.get_rank() == rank:
            library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_lock(mutex)
        dist.all_reduce(torch.ones(1))


def run_slowly(output: str, seconds: float) -> None:
    with watched(output) as watchdog:
        train(watchdog, 3)
        for phase in ("validation", "save"):
            watchdog.progress(phase)
            time.sleep(seconds)
        for _ in range(3):  # of which no micro-batch takes too long, but all together
            watchdog.progress("step")
            time.sleep(0.6 * LIMIT)
        watchdog.finished_step()
        train(watchdog, 2)


def compile_for_ever(output: str) -> None:
    with watched(output, watchdog_start_seconds=1.0) as watchdog:
        watchdog.progress("step")
        if dist.get_rank() == 0:
            sleep_for_ever()
        dist.all_reduce(torch.ones(1))


def save_for_ever(output: str) -> None:
    with watched(output, watchdog_save_seconds=1.0) as watchdog:
        train(watchdog, 3)
        watchdog.progress("save")
        if dist.get_rank() == 0:
            sleep_for_ever()
        dist.barrier()


def hang_with_the_disk(output: str) -> None:
    module._WRITE_SECONDS = 1.0
    module.write_stacks = module.write_flight_record = lambda *_: sleep_for_ever()
    sleep_in_python(output)


def lose_rank_0(output: str, number: int) -> None:
    with watched(output) as watchdog:
        train(watchdog, 3)
        if dist.get_rank() == 0:
            os.kill(os.getpid(), number)
        if number == signal.SIGKILL:
            sleep_for_ever()
        dist.all_reduce(torch.ones(1))


def wait_to_be_stopped(output: str) -> str:
    with watched(output) as watchdog:
        train(watchdog, 3)
        watchdog.progress("step")
        Path(output, f"pid_{os.getpid()}").touch()
        while not Path(output, "go on").exists():
            time.sleep(0.1)
            watchdog.progress("step")
        train(watchdog, 3)
    return "done"


def fork_and_leave(output: str) -> list[int | None]:
    with watched(output) as watchdog:
        time.sleep(1.5)
        train(watchdog, 2)
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join(20)
        started = subprocess.run([sys.executable, "-c", "import time; time.sleep(0.1)"], check=False)
    return [child.exitcode, started.returncode]


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
    assert "(limit 3 s) in step 4, micro-batch 1, at sleep_for_ever (training/test_watchdog.py:" in line
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


def hang_in_deepspeed(output: str, stage: int) -> None:
    with watched(output) as watchdog:
        run = TinyRun(stage, "fp32")
        for _ in range(3):
            watchdog.progress("step")
            run.train(1)
            watchdog.finished_step()
        watchdog.progress("step")
        if dist.get_rank() == 1:
            run.engine.module.norm.register_forward_hook(lambda *_: sleep_for_ever())
        run.train(1)


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
