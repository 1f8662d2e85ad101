"""One rank of benchmarks/scaling.py: times or bytes of steps at every ZeRO stage.

Started by torchrun with what to do as JSON. Rank 0 writes OUTPUT.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from collectives import count_collectives
from plan_run import MadeUpRun, model_config, read_stage

from deltalm_ds.planning.activations import MicroBatch
from deltalm_ds.training.distributed import join_processes

CLOCKS = ("wall", "processor")
_WARM_UP = 2
_STEPS = 3
_LARGE, _SMALL = 4 << 22, 1
"""Numbers that are all-reduced to time the link: 64 MiB, and one."""


def main(work: str, output: str) -> None:
    """Run each stage in turn."""
    values = json.loads(work)
    calls = count_collectives()
    process = join_processes()
    batch = MicroBatch(**values["batch"])
    result: dict[str, Any] = {"stages": {}}
    for stage in range(4):
        with tempfile.TemporaryDirectory() as folder:
            config = read_stage(stage, process.world_size, batch.num_samples, 1, Path(folder))
        run = MadeUpRun(model_config(**values["model"]), config, batch, 0)
        times = _Times(run)
        for number in range(_WARM_UP + _STEPS):
            calls.clear()
            times.step(number)
        sent_bytes = sum(call.sent_bytes(process.world_size) for call in calls)
        result["stages"][stage] = {
            "passes": _median(times.passes[_WARM_UP:]),
            "update": _median(times.updates[_WARM_UP:]),
            "sent_bytes": sent_bytes,
        }
        run.engine.deepspeed.destroy()
    result["large_seconds"], result["small_seconds"] = (_all_reduce(size) for size in (_LARGE, _SMALL))
    result["large_bytes"] = 4 * _LARGE
    if process.is_first:
        Path(output).write_text(json.dumps(result))
    dist.destroy_process_group()


class _Times:
    """Seconds of each step by both clocks, the optimizer's update apart."""

    def __init__(self, run: MadeUpRun) -> None:
        self.run = run
        self.passes: list[list[float]] = []
        self.updates: list[list[float]] = []
        update = run.engine._update

        def timed(*arguments: Any) -> Any:
            start = _now()
            outcome = update(*arguments)
            self.updates.append(_since(start))
            return outcome

        run.engine._update = timed  # type: ignore[method-assign]

    def step(self, number: int) -> None:
        """One step, which all ranks begin together."""
        dist.barrier()
        start = _now()
        self.run.step(number)
        whole, update = _since(start), self.updates[-1]
        self.passes.append([all_of - of for all_of, of in zip(whole, update, strict=True)])


def _all_reduce(size: int) -> dict[str, float]:
    numbers, seconds = torch.ones(size), []
    for _ in range(5):
        dist.barrier()
        start = _now()
        dist.all_reduce(numbers)
        seconds.append(_since(start))
    return _median(seconds)


def _now() -> tuple[float, float]:
    """Wall clock, and processor time of all threads."""
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> list[float]:
    return [now - then for now, then in zip(_now(), start, strict=True)]


def _median(seconds: list[list[float]]) -> dict[str, float]:
    """By each clock, the mean of all ranks."""
    medians = torch.tensor([statistics.median(column) for column in zip(*seconds, strict=True)])
    dist.all_reduce(medians)
    return dict(zip(CLOCKS, (medians / dist.get_world_size()).tolist(), strict=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
