"""One side of benchmarks/step.py in a process of its own.

Started with side, preset, device and dtype. Then each line on stdin, "SHAPE time" or "SHAPE memory", runs one
step and is answered by one line of JSON. Measuring memory gives freed pages back first, which costs time, so
no step is measured for both.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import cast

import torch
from batches import Shape, make_batch
from peak_memory import PeakMemory
from sides import SIDES, SideName

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(side_name: SideName, preset: str, device_name: str, dtype_name: str) -> None:
    """Answer requests until stdin ends."""
    torch.manual_seed(0)
    device = torch.device(device_name)
    side = SIDES[side_name](preset, device, DTYPES[dtype_name])
    memory = PeakMemory(device)
    steps: dict[str, Callable[[int], torch.Tensor]] = {}
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints stays out of the answers
    print(json.dumps({"parameters": num_parameters(side.model)}), file=answers, flush=True)
    for number, line in enumerate(sys.stdin):
        shape, measure = line.split()
        if shape not in steps:
            steps[shape] = side.prepare(make_batch(cast(Shape, shape), side.config.vocabulary_rows))
        if measure == "memory":
            memory.start()
        synchronize(device)
        start, start_cpu = time.perf_counter(), time.process_time()
        loss = steps[shape](number)
        synchronize(device)
        answer = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - start_cpu,
            "loss": loss.item(),
        }
        if measure == "memory":
            gradients = sum(p.grad.nbytes for p in side.model.parameters() if p.grad is not None)
            answer["extra_bytes"] = memory.bytes_since_start() - gradients
        side.model.zero_grad(set_to_none=True)
        print(json.dumps(answer), file=answers, flush=True)


def num_parameters(model: torch.nn.Module) -> int:
    """Trained numbers; tied tables count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
