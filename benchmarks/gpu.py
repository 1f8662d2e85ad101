"""`make gpu`: are the kernels right on this GPU, and how fast? Checks, compute-sanitizer, benchmarks.

Needs a CUDA GPU, torch, numpy, and nvcc to compile the kernels; deepspeed is not needed. Writes gpu.json and
gpu.md into benchmarks/results/ after every part, and how the kernels compare with torch into
deltalm_ds/ops/cuda/measured.json, from which runs on such a GPU choose. Parts that the time does not allow,
or that fail, are left out, and the results say so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import kernel_checks
import torch
import ways
from goals import FULL, Sizes
from timing import Ceilings, Clock, first_line

import kernels
from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically
from deltalm_ds.ops.cuda import choice

FOLDER = Path(__file__).resolve().parent
SANITIZER_TOOLS = ("memcheck", "racecheck")
_WAYS_ROUNDS = 10
# Seconds allowed for each part, to tell whether it can still begin: estimates, for none was ever timed.
_NEEDED = {"memcheck": 100, "racecheck": 100, "kernels": 120, "base": 75, "large": 120}


@dataclass
class Report:
    """What was found, part by part."""

    machine: dict[str, str]
    checks: list[str] = field(default_factory=list)
    wrong: int = 0
    sanitizer: dict[str, str] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    kernels: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
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
            "of torch's own operation or one rounding of the result.",
            *(line for line in self.checks if line.startswith("WRONG")),
            *(f"compute-sanitizer {tool}: {found}." for tool, found in self.sanitizer.items()),
            *(f"Left out: {part}." for part in self.left_out),
            *self.tables,
        ]
        return "\n\n".join(lines) + "\n"


class Suite:
    """All parts, one after the other, until the time is used up."""

    def __init__(self, device: torch.device, minutes: float, save: Callable[[Report], None]) -> None:
        self._device = device
        self._deadline = time.monotonic() + 60 * minutes
        self._save = save
        self.report = Report(_machine(device))

    def run(self, sizes: Sizes, batch: ways.Batch, rounds: int, presets: tuple[str, ...]) -> None:
        """What is known after each part is saved."""
        self._part("correctness", self._check)
        if self._device.type == "cuda":
            for tool in SANITIZER_TOOLS:
                self._part(tool, lambda tool=tool: self._sanitize(tool))
        self._part("kernels", lambda: self._kernels(sizes, rounds))
        for preset in presets if self.report.ceilings else ():
            self._part(preset, lambda preset=preset: self._ways(preset, batch, rounds))

    def _part(self, name: str, work: Callable[[], None]) -> None:
        print(f"\n== {name}", flush=True)
        if time.monotonic() + _NEEDED.get(name, 0) > self._deadline:
            self.report.left_out.append(f"{name}, for want of time")
        else:
            try:
                work()
            except Exception as error:
                traceback.print_exc()
                self.report.left_out.append(f"{name}, which failed: {first_line(error)}")
        self._save(self.report)

    def _check(self) -> None:
        found = kernel_checks.check(self._device, small=self._device.type != "cuda")
        self.report.checks = [str(finding) for finding in found]
        self.report.wrong = sum(not finding.is_right for finding in found)

    def _sanitize(self, tool: str) -> None:
        """The small checks under compute-sanitizer, every tensor in memory of its own."""
        program = _sanitizer()
        if program is None:
            raise FileNotFoundError("compute-sanitizer is neither on the PATH nor in CUDA_HOME")
        script = [sys.executable, str(FOLDER / "kernel_checks.py"), "--small"]
        command = [program, "--tool", tool, "--error-exitcode", "9", "--report-api-errors", "no", *script]
        environment = {
            **os.environ,
            "PYTHONPATH": str(FOLDER.parent),
            "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
        }
        running = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        try:
            output, _ = running.communicate(timeout=_NEEDED[tool])
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            raise TimeoutError(f"not done after {_NEEDED[tool]} s") from None
        summary = [line for line in output.splitlines() if "SUMMARY" in line or "comparisons" in line]
        self.report.sanitizer[tool] = f"exit code {running.returncode}; {' '.join(summary)}"
        if running.returncode:
            self.report.wrong += 1
            self.report.checks.append(f"WRONG {tool}: {output[-2000:]}")

    def _kernels(self, sizes: Sizes, rounds: int) -> None:
        measurement = kernels.Measurement(self._device, sizes, rounds)
        measurement.run()
        report = self.report
        report.ceilings = asdict(measurement.ceilings)
        report.kernels = kernels.described(measurement.rows)
        report.ratios = kernels.ratios_to_torch(measurement.rows)
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in report.ratios.items())
        report.tables += [
            kernels.markdown(measurement.ceilings, measurement.rows),
            "Times as fast as torch's best, on the worst problem of each operation; below 1 torch runs it: "
            f"{ratios}.",
        ]

    def _ways(self, preset: str, batch: ways.Batch, rounds: int) -> None:
        clock = Clock(self._device, min(rounds, _WAYS_ROUNDS))
        found = ways.measure(self._device, preset, batch, clock, Ceilings(**self.report.ceilings))
        self.report.ways += map(asdict, found)
        self.report.tables.append(ways.markdown(found, batch))


def write(report: Report, folder: Path, measured: Path) -> None:
    """gpu.json and gpu.md; the ratios to torch for runs to choose by, if every comparison was right."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: value for name, value in asdict(report).items() if name != "tables"}
    write_text_atomically(folder / "gpu.json", json.dumps(content, indent=2) + "\n")
    write_text_atomically(folder / "gpu.md", report.markdown())
    if report.ratios and report.checks and not report.wrong:
        known = json.loads(measured.read_text(encoding="utf-8"))
        known[report.machine["gpu"]] = report.ratios
        write_text_atomically(measured, json.dumps(known, indent=2) + "\n")


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
        print("make gpu: torch sees no CUDA GPU here; run it on a machine that has one", file=sys.stderr)
        sys.exit(2)
    suite = Suite(
        torch.device("cuda"),
        settings.minutes,
        lambda report: write(report, settings.results, choice.MEASURED),
    )
    try:
        kernels.use_kernels()
    except UserError as error:
        print(f"make gpu: {error}", file=sys.stderr)
        sys.exit(2)
    suite.run(FULL, ways.Batch(), settings.rounds, ("base", "large"))
    print("\n" + suite.report.markdown())
    sys.exit(1 if suite.report.wrong else 0)


if __name__ == "__main__":
    main()
