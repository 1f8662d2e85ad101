"""`make gpu`: are the kernels right on this GPU, and how fast? Checks, compute-sanitizer, benchmarks.

Needs a CUDA GPU, torch, and nvcc to compile the kernels; deepspeed is not needed. Writes gpu.json and gpu.md
into benchmarks/results/, and how the kernels compare with torch into deltalm_ds/ops/cuda/measured.json, from
which runs on such a GPU choose. Parts that the time does not allow are left out, and the results say so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import kernel_checks
import torch
import ways
from goals import FULL, Sizes
from timing import Clock

import kernels
from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically
from deltalm_ds.ops.cuda import choice

FOLDER = Path(__file__).resolve().parent
SANITIZER_TOOLS = ("memcheck", "racecheck")
_WAYS_ROUNDS = 10
# Seconds that a part may take at most, to tell whether it can still begin.
_NEEDED = {"memcheck": 100, "racecheck": 100, "kernels": 150, "base": 60, "large": 60}


@dataclass
class Report:
    """What was found, part by part."""

    machine: dict[str, str]
    checks: list[str] = field(default_factory=list)
    wrong: int = 0
    sanitizer: dict[str, str] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)
    ways: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The page."""
        right = len(self.checks) - self.wrong
        lines = [
            "# Kernels on a GPU",
            ", ".join(f"{name} {value}" for name, value in self.machine.items()) + ".",
            f"Against fp64: {right} of {len(self.checks)} comparisons are right, each within twice the error "
            "of torch's own operation.",
            *(line for line in self.checks if line.startswith("WRONG")),
            *(f"compute-sanitizer {tool}: {found}." for tool, found in self.sanitizer.items()),
            *(f"Left out: {part}." for part in self.left_out),
            *self.tables,
        ]
        return "\n\n".join(lines) + "\n"


def run(
    device: torch.device,
    sizes: Sizes,
    batch: ways.Batch,
    rounds: int,
    minutes: float,
    presets: tuple[str, ...],
) -> tuple[Report, dict[str, float]]:
    """All parts within `minutes`; also each operation's worst ratio to torch."""
    deadline = time.monotonic() + 60 * minutes
    report = Report(_machine(device))

    def is_time_for(part: str) -> bool:
        enough = time.monotonic() + _NEEDED[part] < deadline
        if not enough:
            report.left_out.append(f"{part}, for want of time")
        return enough

    _part("correctness")
    found = kernel_checks.check(device, small=device.type != "cuda")
    report.checks = [str(finding) for finding in found]
    report.wrong = sum(not finding.is_right for finding in found)
    if device.type == "cuda":
        _sanitize(report, is_time_for)
    ratios: dict[str, float] = {}
    if is_time_for("kernels"):
        _part("kernels")
        measurement = kernels.Measurement(device, sizes, rounds)
        measurement.run()
        report.ceilings = asdict(measurement.ceilings)
        report.kernels = kernels.described(measurement.rows)
        report.tables.append(kernels.markdown(measurement.ceilings, measurement.rows))
        ratios = kernels.ratios_to_torch(measurement.rows)
        report.tables.append(
            "Times as fast as torch's best on the worst problem of each operation; below 1 it runs by torch: "
            + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            + "."
        )
        presets = tuple(preset for preset in presets if is_time_for(preset))
        _part("steps")
        clock = Clock(device, min(rounds, _WAYS_ROUNDS))
        found_ways = ways.measure(device, presets, batch, clock, measurement.ceilings)
        report.ways = [asdict(result) for result in found_ways]
        report.tables.append(ways.markdown(found_ways, batch))
    return report, ratios


def write(report: Report, ratios: dict[str, float], folder: Path, measured: Path) -> None:
    """gpu.json and gpu.md; the ratios only if every comparison was right."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: value for name, value in asdict(report).items() if name != "tables"}
    write_text_atomically(folder / "gpu.json", json.dumps(content, indent=2) + "\n")
    write_text_atomically(folder / "gpu.md", report.markdown())
    if ratios and not report.wrong:
        known = json.loads(measured.read_text(encoding="utf-8"))
        known[report.machine["gpu"]] = ratios
        write_text_atomically(measured, json.dumps(known, indent=2) + "\n")


def _sanitize(report: Report, is_time_for: Callable[[str], bool]) -> None:
    """The small checks under compute-sanitizer."""
    program = _sanitizer()
    if program is None:
        report.left_out.append("compute-sanitizer, which is not on the PATH or in CUDA_HOME")
        return
    for tool in SANITIZER_TOOLS:
        if not is_time_for(tool):
            continue
        _part(f"compute-sanitizer {tool}")
        script = [sys.executable, str(FOLDER / "kernel_checks.py"), "--small"]
        command = [program, "--tool", tool, "--error-exitcode", "9", *script]
        try:
            environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_NEEDED[tool], env=environment
            )
        except subprocess.TimeoutExpired:
            report.sanitizer[tool] = f"not done after {_NEEDED[tool]} s"
            continue
        summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line or "comparisons" in line]
        report.sanitizer[tool] = f"exit code {done.returncode}; {' '.join(summary)}"
        if done.returncode:
            report.wrong += 1
            report.checks.append(f"WRONG {tool}: {done.stdout[-2000:]}")


def _sanitizer() -> str | None:
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin/compute-sanitizer"
    return shutil.which("compute-sanitizer") or (str(home) if home.is_file() else None)


def _machine(device: torch.device) -> dict[str, str]:
    described = {"date": date.today().isoformat(), "torch": torch.__version__}
    if device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name()
        described["CUDA"] = str(torch.version.cuda)
    else:
        described["gpu"] = "none (kernels emulated on the CPU: times mean nothing)"
    return described


def _part(name: str) -> None:
    print(f"\n== {name}", flush=True)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="time for everything (default: 9)")
    parser.add_argument("--rounds", type=int, default=kernels.ROUNDS, help="timed turns of each contender")
    parser.add_argument(
        "--results", type=Path, default=FOLDER / "results", help="folder for gpu.json, gpu.md"
    )
    settings = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("make gpu: torch sees no CUDA GPU here; run it on a machine that has one")
    try:
        kernels.use_kernels()
    except UserError as error:
        sys.exit(f"make gpu: {error}")
    report, ratios = run(
        torch.device("cuda"), FULL, ways.Batch(), settings.rounds, settings.minutes, ("base", "large")
    )
    write(report, ratios, settings.results, choice.MEASURED)
    print("\n" + report.markdown())
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
