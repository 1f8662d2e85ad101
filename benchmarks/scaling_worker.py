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
        result["stages"][stage] = {
            "passes": statistics.median(times.passes[_WARM_UP:]),
            "update": statistics.median(times.updates[_WARM_UP:]),
            "sent_bytes": sum(call.sent_bytes(process.world_size) for call in calls),
            "calls": len(calls),
        }
        run.engine.deepspeed.destroy()
    result["large_seconds"], result["small_seconds"] = (_all_reduce(size) for size in (_LARGE, _SMALL))
    result["large_bytes"] = 4 * _LARGE
    if process.is_first:
        Path(output).write_text(json.dumps(result))
    dist.destroy_process_group()


class _Times:
    """Seconds of each step, the optimizer's update apart."""

    def __init__(self, run: MadeUpRun) -> None:
        self.run = run
        self.passes: list[float] = []
        self.updates: list[float] = []
        update = run.engine._update

        def timed() -> Any:
            start = time.perf_counter()
            outcome = update()
            self.updates.append(time.perf_counter() - start)
            return outcome

        run.engine._update = timed  # type: ignore[method-assign]

    def step(self, number: int) -> None:
        """One step, which all ranks begin together."""
        dist.barrier()
        start = time.perf_counter()
        self.run.step(number)
        self.passes.append(time.perf_counter() - start - self.updates[-1])


def _all_reduce(size: int) -> float:
    numbers, seconds = torch.ones(size), []
    for _ in range(5):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
