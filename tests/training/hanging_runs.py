"""Runs under a watchdog that hang in many ways; each function is what all ranks do."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny_run import TinyRun

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
