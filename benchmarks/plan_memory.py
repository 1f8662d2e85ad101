"""Memory as the planner predicts it, and as two processes on this CPU, or one on a GPU, have it.

    python benchmarks/plan_memory.py --predict    # the predictions alone
    python benchmarks/plan_memory.py              # then the measurements, a cell at a time; resumable
    python benchmarks/plan_memory.py --gpu        # the same on one GPU, in bf16 and by torch

A cell is a model, a ZeRO stage, as shipped in ds_configs/, and activation checkpointing on or off. On a GPU,
measured is the most that torch's allocator had given out. On the CPU, in fp32 over gloo, it is the most that
a process ever had in memory (VmHWM), less what it had after importing; the higher one of the two processes.
There glibc is told to give each tensor of 64 KiB or more a mapping of its own (MALLOC_MMAP_THRESHOLD_), so
that what is freed leaves the process: by default it stays in the heap, in holes that depend on the order of
every small object between. What that takes is measured for some cells, without being predicted.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from plan_run import model_config
from ranks import ROOT, run_ranks

from deltalm_ds.files import write_text_atomically
from deltalm_ds.ops.cuda import choice
from deltalm_ds.planning.activations import MicroBatch, Way
from deltalm_ds.planning.configuration import zero_settings
from deltalm_ds.planning.memory import Memory, peak_memory
from deltalm_ds.planning.shapes import shape_of
from deltalm_ds.planning.zero import Dtype

RESULTS = ROOT / "benchmarks" / "results"
GOAL = 0.15
"""Measured may differ so much from predicted, as a share of measured."""
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
ON_GPU = {"DS_ACCELERATOR": "cuda", choice.VARIABLE: "reference"}


@dataclass(frozen=True)
class Model:
    """A model and what a process trains it on at once."""

    sizes: Mapping[str, int]
    batch: MicroBatch


@dataclass(frozen=True)
class Machine:
    """What the cells run on."""

    num_ranks: int
    dtype: Dtype
    way: Way
    environment: Mapping[str, str]
    models: Mapping[str, Model]
    words: str
    """What is measured, for the page."""

    @property
    def cells(self) -> list[Cell]:
        """All, in their order."""
        return [
            Cell(self, model, stage, every) for model in self.models for stage in range(4) for every in (0, 1)
        ]


def _sizes(width: int, num_heads: int, vocabulary_rows: int) -> dict[str, int]:
    return {
        "width": width,
        "feed_forward_width": 4 * width,
        "num_heads": num_heads,
        "num_encoder_layers": 12,
        "num_decoder_blocks": 6,
        "vocabulary_rows": vocabulary_rows,
    }


CPU = Machine(
    num_ranks=2,
    dtype="fp32",
    way="cpu",
    environment=MAPPED,
    models={
        "55M": Model(_sizes(384, 6, 32_000), MicroBatch(8, 256, 128)),
        "138M": Model(_sizes(640, 10, 32_000), MicroBatch(6, 256, 128)),
    },
    words="`python benchmarks/plan_memory.py`: 2 processes, fp32, gloo. MB beyond what the process has\n"
    "after importing, the higher rank's",
)
GPU = Machine(
    num_ranks=1,
    dtype="bf16",
    way="torch",
    environment=ON_GPU,
    models={
        "138M": Model(_sizes(640, 10, 32_000), MicroBatch(64, 512, 256)),
        "base": Model(_sizes(768, 12, 250_112), MicroBatch(32, 512, 256)),
    },
    words="`python benchmarks/plan_memory.py --gpu`: one process, bf16, by torch's operations. MB of\n"
    "torch's allocator at its most",
)


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    machine: Machine
    model: str
    stage: int
    every: int
    """0: no activation checkpointing; 1: of every layer."""

    @property
    def name(self) -> str:
        """For people and as a key."""
        return f"{self.model}, ZeRO-{self.stage}, checkpointing {'on' if self.every else 'off'}"

    def predict(self) -> Memory:
        """By the planner, from the model's sizes and the configuration alone."""
        machine, model = self.machine, self.machine.models[self.model]
        zero = zero_settings(self.stage, machine.dtype)
        shape = shape_of(model_config(**model.sizes))
        return peak_memory(shape, zero, machine.num_ranks, model.batch, every=self.every, way=machine.way)

    def measure(self, environment: Mapping[str, str]) -> float:
        """Bytes, of fresh processes."""
        machine, model = self.machine, self.machine.models[self.model]
        values = {
            "model": model.sizes,
            "batch": dataclasses.asdict(model.batch),
            "dtype": machine.dtype,
            "stage": self.stage,
            "every": self.every,
        }
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "peak"
            run_ranks("plan_worker.py", values, output, machine.num_ranks, environment)
            peaks = [json.loads(Path(f"{output}.{rank}").read_text()) for rank in range(machine.num_ranks)]
        return max(peaks)


IN_HEAP = [Cell(CPU, "55M", stage, every) for stage in (0, 3) for every in (0, 1)]
"""Measured with glibc's own settings as well."""


@dataclass(kw_only=True)
class Settings:
    """Predict memory, measure it, and write results/plan-memory.md, or plan-memory-gpu.md."""

    predict: bool = False
    """Only predict."""
    gpu: bool = False
    """On a CUDA GPU instead of the CPU."""
    again: bool = False
    """Measure also what the results' JSON has."""


def main(settings: Settings) -> int:
    """Predict all, then measure what is not measured; 1 if a cell misses the goal."""
    if settings.gpu and not settings.predict and not torch.cuda.is_available():
        sys.exit("plan_memory: no CUDA GPU here: run it where there is one, or leave --gpu out")
    machine, in_heap = (GPU, []) if settings.gpu else (CPU, IN_HEAP)
    path = RESULTS / ("plan-memory-gpu.json" if settings.gpu else "plan-memory.json")
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not settings.again else {}
    for cell in machine.cells:
        memory = cell.predict()
        results.setdefault(cell.name, {})["predicted"] = memory.total
        results[cell.name]["phase"] = memory.phase
    _write(path, machine, results)
    sets = (("measured", machine.cells, machine.environment), ("in_heap", in_heap, {}))
    for key, cells, environment in sets:
        for cell in () if settings.predict else cells:
            if key not in results[cell.name]:
                print(f"{cell.name}, {key} ...", flush=True)
                results[cell.name][key] = cell.measure(environment)
                _write(path, machine, results)
                print(_row(cell.name, results[cell.name]), flush=True)
    measured = [result for result in results.values() if "measured" in result]
    return int(any(abs(_miss(result)) > GOAL for result in measured))


def _miss(result: dict[str, float]) -> float:
    return result["predicted"] / result["measured"] - 1


def _write(path: Path, machine: Machine, results: dict[str, Any]) -> None:
    write_text_atomically(path, json.dumps(results, indent=1) + "\n")
    write_text_atomically(path.with_suffix(".md"), _markdown(machine, results))


def _row(name: str, result: dict[str, Any]) -> str:
    predicted, measured = result["predicted"], result.get("measured")
    shown = "" if measured is None else f"{measured / 1e6:,.0f}"
    ratio = "" if measured is None else f"{predicted / measured:.3f}"
    return f"| {name} | {predicted / 1e6:,.0f} | {result['phase']} | {shown} | {ratio} |"


def _with_heap(name: str, result: dict[str, Any]) -> str:
    heap = f"{result['in_heap'] / 1e6:,.0f}" if "in_heap" in result else ""
    return f"{_row(name, result)} {heap} |"


def _markdown(machine: Machine, results: dict[str, Any]) -> str:
    head = "| cell | predicted | at its most in | measured | predicted / measured |"
    row = _row
    if any("in_heap" in result for result in results.values()):
        head, row = f"{head} measured, glibc's heap as it is |", _with_heap
    rows = [head, "|---" * (head.count("|") - 1) + "|"]
    rows += [row(cell.name, results[cell.name]) for cell in machine.cells]
    table = "\n".join(rows)
    measured = [result for result in results.values() if "measured" in result]
    met = sum(abs(_miss(result)) <= GOAL for result in measured)
    setting = ", ".join(map("=".join, machine.environment.items()))
    verdict = "Nothing is measured yet: these are the predictions that come before."
    if measured:
        verdict = f"{met} of {len(measured)} measured cells are within {GOAL:.0%}, with {setting}."
        verdict += f" Largest miss: {max(map(_miss, measured), key=abs):+.1%}."
    if in_heap := [result for result in results.values() if "in_heap" in result]:
        most = max(result["in_heap"] / result["predicted"] for result in in_heap) - 1
        verdict += f" With glibc's heap as it is, the cells tried take up to {most:.0%} more than predicted."
    batches = ", ".join(
        f"{name}: {model.batch.num_samples} samples of {model.batch.source_length} and "
        f"{model.batch.target_length} tokens"
        for name, model in machine.models.items()
    )
    return f"""# Memory, predicted and measured

{machine.words}.
Configurations of ds_configs/; on each rank {batches}.
Python {platform.python_version()}. How it is measured is in the script.

{table}

{verdict}
"""


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
