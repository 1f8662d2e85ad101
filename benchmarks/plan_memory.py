"""Memory as the planner predicts it, and as two processes on this CPU have it.

    python benchmarks/plan_memory.py --predict    # the predictions alone
    python benchmarks/plan_memory.py              # then the measurements, a cell at a time; resumable

A cell is a model, a ZeRO stage, as shipped in ds_configs/, and activation checkpointing on or off, in fp32
over gloo. Measured is the most that a process ever had in memory (VmHWM), less what it had after importing;
the higher one of the two processes. glibc is told to give each tensor of 64 KiB or more a mapping of its own
(MALLOC_MMAP_THRESHOLD_), so that what is freed leaves the process: by default it stays in the heap, in holes
that depend on the order of every small object between. What that takes is measured for some cells, without
being predicted.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from plan_run import model_config
from ranks import ROOT, run_ranks

from deltalm_ds.files import write_text_atomically
from deltalm_ds.planning.activations import MicroBatch
from deltalm_ds.planning.configuration import zero_settings
from deltalm_ds.planning.memory import Memory, peak_memory
from deltalm_ds.planning.shapes import shape_of

RESULTS = ROOT / "benchmarks" / "results"
NUM_RANKS = 2
GOAL = 0.15
"""Measured may differ so much from predicted, as a share of measured."""
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}

MODELS = {
    "55M": {
        "width": 384,
        "feed_forward_width": 1536,
        "num_heads": 6,
        "num_encoder_layers": 12,
        "num_decoder_blocks": 6,
        "vocabulary_rows": 32_000,
    },
    "138M": {
        "width": 640,
        "feed_forward_width": 2560,
        "num_heads": 10,
        "num_encoder_layers": 12,
        "num_decoder_blocks": 6,
        "vocabulary_rows": 32_000,
    },
}
BATCHES = {"55M": MicroBatch(8, 256, 128), "138M": MicroBatch(6, 256, 128)}


@dataclass(frozen=True)
class Cell:
    """One measurement."""

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
        zero = zero_settings(self.stage, "fp32")
        shape = shape_of(model_config(**MODELS[self.model]))
        return peak_memory(shape, zero, NUM_RANKS, BATCHES[self.model], every=self.every, way="cpu")

    def measure(self, environment: dict[str, str]) -> float:
        """Bytes, of two fresh processes."""
        values = {
            "model": MODELS[self.model],
            "batch": dataclasses.asdict(BATCHES[self.model]),
            "stage": self.stage,
            "every": self.every,
        }
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "peak"
            run_ranks("plan_worker.py", values, output, NUM_RANKS, environment)
            peaks = [json.loads(Path(f"{output}.{rank}").read_text()) for rank in range(NUM_RANKS)]
        return max(peaks)


CELLS = [Cell(model, stage, every) for model in MODELS for stage in range(4) for every in (0, 1)]
IN_HEAP = [Cell("55M", stage, every) for stage in (0, 3) for every in (0, 1)]
"""Measured with glibc's own settings as well."""


@dataclass(kw_only=True)
class Settings:
    """Predict memory, measure it, and write results/plan-memory.md."""

    predict: bool = False
    """Only predict."""
    again: bool = False
    """Measure also what results/plan-memory.json has."""


def main(settings: Settings) -> int:
    """Predict all, then measure what is not measured; 1 if a cell misses the goal."""
    path = RESULTS / "plan-memory.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() and not settings.again else {}
    for cell in CELLS:
        memory = cell.predict()
        results.setdefault(cell.name, {})["predicted"] = memory.total
        results[cell.name]["phase"] = memory.phase
    _write(path, results)
    for key, cells, environment in (("measured", CELLS, MAPPED), ("in_heap", IN_HEAP, {})):
        for cell in () if settings.predict else cells:
            if key not in results[cell.name]:
                print(f"{cell.name}, {key} ...", flush=True)
                results[cell.name][key] = cell.measure(environment)
                _write(path, results)
                print(_row(cell.name, results[cell.name]), flush=True)
    measured = [result for result in results.values() if "measured" in result]
    return int(any(abs(_miss(result)) > GOAL for result in measured))


def _miss(result: dict[str, float]) -> float:
    return result["predicted"] / result["measured"] - 1


def _write(path: Path, results: dict[str, Any]) -> None:
    write_text_atomically(path, json.dumps(results, indent=1) + "\n")
    write_text_atomically(path.with_suffix(".md"), _markdown(results))


def _row(name: str, result: dict[str, Any]) -> str:
    predicted, measured = result["predicted"], result.get("measured")
    shown = "" if measured is None else f"{measured / 1e6:,.0f}"
    ratio = "" if measured is None else f"{predicted / measured:.3f}"
    heap = f"{result['in_heap'] / 1e6:,.0f}" if "in_heap" in result else ""
    return f"| {name} | {predicted / 1e6:,.0f} | {result['phase']} | {shown} | {ratio} | {heap} |"


def _markdown(results: dict[str, Any]) -> str:
    rows = "\n".join(_row(cell.name, results[cell.name]) for cell in CELLS)
    measured = [result for result in results.values() if "measured" in result]
    met = sum(abs(_miss(result)) <= GOAL for result in measured)
    setting = ", ".join(map("=".join, MAPPED.items()))
    verdict = f"{met} of {len(measured)} measured cells are within {GOAL:.0%}, with {setting}."
    if measured:
        verdict += f" Largest miss: {max(map(_miss, measured), key=abs):+.1%}."
    if in_heap := [result for result in results.values() if "in_heap" in result]:
        most = max(result["in_heap"] / result["predicted"] for result in in_heap) - 1
        verdict += f" With glibc's heap as it is, the cells tried take up to {most:.0%} more than predicted."
    batches = ", ".join(
        f"{name}: {batch.num_samples} samples of {batch.source_length} and {batch.target_length} tokens"
        for name, batch in BATCHES.items()
    )
    return f"""# Memory, predicted and measured

`python benchmarks/plan_memory.py`: {NUM_RANKS} processes, fp32, gloo, configurations of ds_configs/; on each
rank {batches}. MB beyond what the process has after importing, the higher rank's; Python
{platform.python_version()}. How it is measured is in the script.

| cell | predicted | at its most in | measured | predicted / measured | measured, glibc's heap as it is |
|---|---|---|---|---|---|
{rows}

{verdict}
"""


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
