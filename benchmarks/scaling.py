"""How a step scales from one process to two, and what 2, 4 and 8 processes send, against the planner.

    python benchmarks/scaling.py

The same global batch on one process and on two, of one thread each, for which two idle cores are needed: the
efficiency is the time of one over twice the time of two. The planner is told what the single process takes
for passes and update and how fast two processes all-reduce, and predicts the step of two. All that is by the
wall clock, and by processor time, which neighbours on the machine disturb less. Bytes are those of rings,
counted from the collectives that a tiny model's step calls.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from plan_run import model_config
from ranks import ROOT, run_ranks
from scaling_worker import CLOCKS

from deltalm_ds.files import write_text_atomically
from deltalm_ds.planning.activations import MicroBatch
from deltalm_ds.planning.communication import communication_of
from deltalm_ds.planning.configuration import STAGES, zero_settings
from deltalm_ds.planning.hardware import Speeds
from deltalm_ds.planning.samples import SampleKind, flops_of
from deltalm_ds.planning.shapes import ModelShape, shape_of
from deltalm_ds.planning.timing import UPDATE_BYTES, Assumptions, Cluster, copied_bytes, step_time

RESULT = ROOT / "benchmarks" / "results" / "scaling.md"
TIMED = {
    "width": 320,
    "feed_forward_width": 1280,
    "num_heads": 5,
    "num_encoder_layers": 4,
    "num_decoder_blocks": 2,
    "vocabulary_rows": 16_000,
}
COUNTED = {**TIMED, "width": 64, "feed_forward_width": 256, "num_heads": 2, "vocabulary_rows": 4_001}
BATCH_SIZE = 8
SOURCE_LENGTH, TARGET_LENGTH = 128, 64
COUNTED_RANKS = (2, 4, 8)
GOAL = 0.02
"""Counted bytes may differ so much from planned ones."""


@dataclass(kw_only=True)
class Settings:
    """Measure scaling and write results/scaling.md."""

    rounds: int = 3
    """Each with fresh processes; medians are taken."""


def main(settings: Settings) -> int:
    """Print and write the tables; 1 if bytes miss the goal."""
    rounds = []
    for number in range(settings.rounds):
        print(f"round {number + 1} of {settings.rounds} ...", flush=True)
        rounds.append([_work(TIMED, ranks, BATCH_SIZE // ranks) for ranks in (1, 2)])
    timed = "\n".join(_timed_row(stage, rounds, clock) for clock in CLOCKS for stage in STAGES)
    counted, largest = [], 0.0
    for ranks in COUNTED_RANKS:
        print(f"bytes of {ranks} processes ...", flush=True)
        found = _work(COUNTED, ranks, 1)["stages"]
        for stage in STAGES:
            zero = zero_settings(stage, "fp32")
            planned = communication_of(shape_of(model_config(**COUNTED)), zero, ranks, 1, 0).sent_bytes(ranks)
            sent = found[str(stage)]["sent_bytes"]
            largest = max(largest, abs(planned / sent - 1))
            counted.append(f"| {ranks} | {stage} | {sent:,.0f} | {planned:,.0f} | {planned / sent:.4f} |")
    write_text_atomically(RESULT, _markdown(settings.rounds, timed, "\n".join(counted), largest))
    print(RESULT.read_text(encoding="utf-8"))
    return int(largest > GOAL)


def _work(model: dict[str, int], num_ranks: int, num_samples: int) -> dict[str, Any]:
    batch = MicroBatch(num_samples, SOURCE_LENGTH, TARGET_LENGTH)
    work = {"model": model, "batch": dataclasses.asdict(batch)}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        run_ranks("scaling_worker.py", work, output, num_ranks, {})
        return json.loads(output.read_text())


def _timed_row(stage: int, rounds: list[list[dict[str, Any]]], clock: str) -> str:
    def median(place: int, *names: str) -> float:
        return statistics.median(
            sum(work[place]["stages"][str(stage)][name][clock] for name in names) for work in rounds
        )

    alone, together = median(0, "passes", "update"), median(1, "passes", "update")
    large, small = (
        statistics.median(work[1][name][clock] for work in rounds)
        for name in ("large_seconds", "small_seconds")
    )
    large_bytes = rounds[0][1]["large_bytes"]  # two ranks send all that is reduced
    planned = _planned_seconds(
        stage, median(0, "passes"), median(0, "update"), large_bytes / (large - small), small
    )
    return (
        f"| {clock} | {stage} | {alone:.2f} | {together:.2f} | {alone / together / 2:.0%} | {planned:.2f} "
        f"| {alone / planned / 2:.0%} |"
    )


def _planned_seconds(
    stage: int, passes: float, update: float, link_bytes_per_second: float, small_all_reduce: float
) -> float:
    """Of a step of two processes, from what one takes and how fast two all-reduce."""
    shape: ModelShape = shape_of(model_config(**TIMED))
    kinds = (SampleKind(1.0, SOURCE_LENGTH, TARGET_LENGTH),)
    zero = dataclasses.replace(zero_settings(stage, "fp32"), overlaps=False)  # a CPU waits
    memory_rate = shape.num_parameters * UPDATE_BYTES / update
    alone = communication_of(shape, zero, 1, 1, 0)
    computing = passes - copied_bytes(shape, zero, alone) / memory_rate
    speeds = Speeds(
        peak_tflops=BATCH_SIZE * flops_of(shape.config, kinds) / computing / 1e12,
        memory_gb_per_second=memory_rate / 1e9,
        link_gb_per_second=link_bytes_per_second / 1e9,
        network_gbit_per_second=1,
    )
    # A message has two hops in an all-reduce of two ranks, one otherwise.
    assumptions = Assumptions(mfu=1, memory_efficiency=1, link_efficiency=1, hop_seconds=small_all_reduce / 2)
    communication = communication_of(shape, zero, 2, 1, 0)
    cluster = Cluster(1, 2, speeds)
    return step_time(shape, zero, cluster, communication, kinds, BATCH_SIZE, 0, assumptions).total


def _markdown(num_rounds: int, timed: str, counted: str, largest: float) -> str:
    millions = shape_of(model_config(**TIMED)).num_parameters / 1e6
    machine = f"{len(os.sched_getaffinity(0))} cores (load {os.getloadavg()[1]:.0f} over the last 5 minutes)"
    return f"""# Scaling, measured and planned

`python benchmarks/scaling.py`, fp32 over gloo, configurations of ds_configs/. Medians of {num_rounds} rounds,
fresh processes of one thread each, on {machine}.

{BATCH_SIZE} samples of {SOURCE_LENGTH} and {TARGET_LENGTH} tokens, {millions:.0f} million parameters.
Processor time is that of a process, its threads together, on average:

| clock | ZeRO | one process, s a step | two, s | efficiency | two, planned, s | planned efficiency |
|---|---|---|---|---|---|---|
{timed}

A tiny model, one sample a process:

| processes | ZeRO | bytes that each sends in a step, counted | planned | planned / counted |
|---|---|---|---|---|
{counted}

Largest difference: {largest:.2%}.
"""


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
