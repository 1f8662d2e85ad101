"""Memory of each process while a model past one process starts in shares under ZeRO-3, on a CPU.

    torchrun --nproc-per-node 2 benchmarks/large_start.py --preset xl

The model is cut, drawn and left: no optimizer, no step. Rank 0 prints the share of a process and the peak of
each, beyond what it had before.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import tyro
from peak_memory import resident

from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.model.config import PRESETS
from deltalm_ds.model.new_weights import NewWeights
from deltalm_ds.training.deepspeed_batch import RequestedBatch
from deltalm_ds.training.deepspeed_config import read_deepspeed_config
from deltalm_ds.training.distributed import join_processes
from deltalm_ds.training.placement import place_shares

M_MMAP_THRESHOLD = -3
"""Of mallopt: larger tensors are mapped by themselves, so that what is freed leaves the process."""


@dataclass(kw_only=True)
class Settings:
    """Start a model in shares and measure."""

    preset: str = "xl"
    """Sizes of the model."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """What the weights are held in."""


def main(settings: Settings) -> None:
    """One rank."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
    process = join_processes()
    content: dict[str, Any] = {"zero_optimization": {"stage": 3}}
    if settings.dtype == "bf16":
        content["bf16"] = {"enabled": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(content))
        batch = RequestedBatch(process.world_size, 1)
        config = read_deepspeed_config(
            path, batch, process.world_size, gradient_clipping=1.0, default_dtype="fp32"
        )
    with torch.device("meta"):
        model = DeltaLM(DeltaLMConfig(**PRESETS[settings.preset]))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
    before = resident("VmRSS")
    place_shares(model, NewWeights(model, seed=0), config)
    peaks: list[Any] = [None] * process.world_size
    dist.all_gather_object(peaks, resident("VmHWM") - before)
    if process.is_first:
        width = 2 if settings.dtype == "bf16" else 4
        share = width * num_parameters / process.world_size
        shown = " and ".join(f"{peak / 1e9:.2f}" for peak in peaks)
        print(f"{settings.preset}: {num_parameters:,} parameters, {settings.dtype}")
        print(f"a process's share of {process.world_size}: {share / 1e9:.2f} GB, peaks {shown} GB")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(tyro.cli(Settings))
