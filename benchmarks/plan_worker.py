"""One rank of a cell of benchmarks/plan_memory.py: two steps, and the most memory that it took.

Started by torchrun with the cell as JSON. Prints nothing; each rank writes OUTPUT.RANK.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

# What a step would import of torch and DeepSpeed, imported now: see BASELINE.
import torch
import torch._dynamo
import torch.distributed as dist
from peak_memory import resident
from plan_run import MadeUpRun, model_config, read_stage

from deltalm_ds.planning.activations import MicroBatch
from deltalm_ds.training.distributed import join_processes

BASELINE = resident("VmRSS")
"""After importing."""


def main(cell: str, output: str) -> None:
    """Run a cell."""
    values = json.loads(cell)
    process = join_processes()
    batch = MicroBatch(**values["batch"])
    with tempfile.TemporaryDirectory() as folder:
        config = read_stage(
            values["stage"], process.world_size, batch.num_samples, 1, Path(folder), values["dtype"]
        )
    model = model_config(**values["model"])
    run = MadeUpRun(model, config, batch, values["every"], process.device)
    # The first makes the optimizer's moments, and lets ZeRO-3 learn the modules' order.
    for number in range(2):
        run.step(number)
    on_gpu = process.device.type == "cuda"
    most = torch.cuda.max_memory_allocated() if on_gpu else resident("VmHWM") - BASELINE
    Path(f"{output}.{process.rank}").write_text(json.dumps(most))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
