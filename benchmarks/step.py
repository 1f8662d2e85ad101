"""Time and peak memory of one training step, DeltaLM on packed tokens against MBart on padded rows.

Both sides have about the same number of parameters, the same dtype, tokens, threads and dropout. Each runs
in a process of its own; rounds alternate, so that both see the same neighbours on a busy machine. On a GPU
DeltaLM's own step is measured first: base and large, eager, compiled and by our kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import report
import torch
import tyro
import ways
from batches import Shape, make_batch
from report import Comparison, SideResult
from timing import Clock

FOLDER = Path(__file__).resolve().parent

DTypeName = Literal["fp32", "bf16"]
Measure = Literal["time", "memory"]
SIDE_NAMES = ("ours", "peer")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Compare one training step of DeltaLM (packed) with Hugging Face's MBart of the same size (padded)."""

    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, …"""
    dtype: tuple[DTypeName, ...] | None = None
    """Dtypes of weights, activations and gradients, one comparison and one pair of files each. Default: fp32
    and bf16; only fp32 on a CPU where torch has no bf16 products: there a step of the peer takes an hour."""
    shape: tuple[Shape, ...] = ("ragged", "full")
    """Batches: ragged (source lengths uniform in 32..512) or full (512 everywhere)."""
    rounds: int = 5
    """Timed steps of each side; one more before them warms up, and one measures memory."""
    preset: Literal["tiny", "small", "base", "large"] = "base"
    """Size of both models."""
    results: Path = FOLDER / "results"
    """Folder for step-HARDWARE-DTYPE.json and .md."""


class Worker:
    """A process that runs steps of one side."""

    def __init__(self, side: str, settings: Settings, dtype: str) -> None:
        # The checkout beside this script is what is measured, whatever is installed.
        python_path = os.pathsep.join([str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.side = side
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "worker.py"), side, settings.preset, settings.device, dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path},
        )
        self.parameters: int = self._answer()["parameters"]

    def run(self, shape: Shape, measure: Measure) -> dict[str, Any]:
        """One step: seconds, cpu_seconds, loss and, with "memory", extra_bytes."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{shape} {measure}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.side} ended with code {self.process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(settings: Settings, dtype: str) -> list[Comparison]:
    """All shapes in one dtype, by the same two processes."""
    with ExitStack() as stack:
        workers = {side: stack.enter_context(Worker(side, settings, dtype)) for side in SIDE_NAMES}
        print(
            dtype,
            *(f"{side}: {worker.parameters:,} parameters" for side, worker in workers.items()),
            sep="; ",
        )
        return [_compare_shape(settings, dtype, shape, workers) for shape in settings.shape]


def _compare_shape(settings: Settings, dtype: str, shape: Shape, workers: dict[str, Worker]) -> Comparison:
    def run(side: str, measure: Measure, name: str) -> dict[str, Any]:
        answer = workers[side].run(shape, measure)
        extra = f", {answer['extra_bytes'] / 1e9:.2f} GB" if measure == "memory" else ""
        seconds = f"{answer['seconds']:.3f} s ({answer['cpu_seconds']:.3f} s of processor)"
        print(f"{dtype} {shape} {name} {side}: {seconds}, loss {answer['loss']:.3f}{extra}", flush=True)
        return answer

    for side in SIDE_NAMES:
        run(side, "time", "warm-up")
    extra_bytes = {side: run(side, "memory", "memory")["extra_bytes"] for side in SIDE_NAMES}
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDE_NAMES}
    for number in range(settings.rounds):
        for side in SIDE_NAMES if number % 2 == 0 else SIDE_NAMES[::-1]:
            rounds[side].append(run(side, "time", f"round {number + 1}"))
    batch = make_batch(shape, vocabulary_rows=1000)
    sides = {
        side: SideResult(
            seconds=[answer["seconds"] for answer in rounds[side]],
            cpu_seconds=[answer["cpu_seconds"] for answer in rounds[side]],
            extra_bytes=extra_bytes[side],
        )
        for side in SIDE_NAMES
    }
    return Comparison(dtype, shape, batch.real_tokens, batch.padded_tokens, sides["ours"], sides["peer"])


def main(settings: Settings) -> None:
    """Run all comparisons, print the table and write it."""
    described = {key: value for key, value in asdict(settings).items() if key not in ("results", "dtype")}
    tables = []
    if torch.device(settings.device).type == "cuda":
        tables.append(_ways(torch.device(settings.device), settings))
    for dtype in settings.dtype or default_dtypes(settings.device):
        name = f"step-{report.hardware(settings.device)}-{dtype}"
        tables.append(report.write(settings.results, name, described, compare(settings, dtype)))
    print("\n" + "\n".join(tables))


def _ways(device: torch.device, settings: Settings) -> str:
    """Base and large three ways; writes step-GPU-ways.json and .md, returns the Markdown."""
    clock = Clock(device, settings.rounds)
    ceilings = clock.ceilings(size=8192)
    batch = ways.Batch()
    by_preset = [ways.measure(device, preset, batch, clock, ceilings) for preset in ("base", "large")]
    results = [result for of_preset in by_preset for result in of_preset]
    torch.cuda.empty_cache()  # the other processes need it
    name = f"step-{report.hardware(settings.device)}-ways"
    record = {
        "machine": report.machine(settings.device),
        "ceilings": asdict(ceilings),
        "results": list(map(asdict, results)),
    }
    settings.results.mkdir(parents=True, exist_ok=True)
    (settings.results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    text = f"# One step three ways\n\n{ways.markdown(results, batch)}"
    (settings.results / f"{name}.md").write_text(text)
    return text


def default_dtypes(device: str) -> tuple[DTypeName, ...]:
    """The dtypes in which both sides can be waited for."""
    if device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        print(
            "bf16 left out: torch has no products for it on this processor; --dtype bf16 measures it anyway"
        )
        return ("fp32",)
    return ("fp32", "bf16")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
