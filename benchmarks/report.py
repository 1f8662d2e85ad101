"""The results of benchmarks/step.py as JSON and as a Markdown table."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass(frozen=True)
class SideResult:
    """One side's timed rounds, in the order they ran, and its memory."""

    seconds: list[float]
    """Wall clock of each step."""
    cpu_seconds: list[float]
    """Processor time of each step, all threads together: steadier where others use the machine."""
    extra_bytes: int
    """Peak memory of a step beyond weights and gradients."""


@dataclass(frozen=True)
class Comparison:
    """Both sides in one dtype on one batch."""

    dtype: str
    shape: str
    real_tokens: int
    padded_tokens: int
    ours: SideResult
    peer: SideResult

    @property
    def speedup(self) -> float:
        """Median over the rounds of peer's seconds / our seconds in the same round."""
        pairs = zip(self.peer.seconds, self.ours.seconds, strict=True)
        return statistics.median(peer / ours for peer, ours in pairs)

    @property
    def cpu_speedup(self) -> float:
        """The same of processor time."""
        pairs = zip(self.peer.cpu_seconds, self.ours.cpu_seconds, strict=True)
        return statistics.median(peer / ours for peer, ours in pairs)

    @property
    def memory_ratio(self) -> float:
        """Our extra bytes / peer's."""
        return self.ours.extra_bytes / self.peer.extra_bytes

    def row(self) -> str:
        """One row of the Markdown table."""
        ours, peer = statistics.median(self.ours.seconds), statistics.median(self.peer.seconds)
        return (
            f"| {self.dtype} | {self.shape} | {self.real_tokens:,} / {self.padded_tokens:,} "
            f"| {ours:.3f} | {peer:.3f} | **{self.speedup:.2f}** | {self.cpu_speedup:.2f} "
            f"| {self.real_tokens / ours:,.0f} | {self.ours.extra_bytes / 1e9:.2f} "
            f"| {self.peer.extra_bytes / 1e9:.2f} | **{self.memory_ratio:.2f}** |"
        )


_HEAD = """\
| dtype | batch | real / padded tokens | ours, s | peer, s | times as fast | by processor time \
| our real tokens/s | our peak, GB | peer's peak, GB | ours / peer's |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def machine(device: str) -> dict[str, str | int]:
    """What the numbers depend on: processor, cores, threads, versions."""
    described: dict[str, str | int] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "amx": "amx_bf16" in _cpu_information(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
    if torch.device(device).type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
    return described


def hardware(device: str) -> str:
    """A name for files: the processor's vector instructions, or the GPU."""
    if torch.device(device).type == "cuda":
        return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower())
    capability = "amx" if "amx_bf16" in _cpu_information() else torch.backends.cpu.get_cpu_capability()
    return f"cpu-{capability.lower()}"


def write(folder: Path, name: str, settings: dict[str, object], results: list[Comparison]) -> str:
    """Write NAME.json and NAME.md into `folder`; returns the Markdown."""
    described = machine(str(settings["device"]))
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": described,
        "settings": settings,
        "results": [
            {
                **asdict(result),
                "speedup": result.speedup,
                "cpu_speedup": result.cpu_speedup,
                "memory_ratio": result.memory_ratio,
            }
            for result in results
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    text = markdown(described, settings, results)
    (folder / f"{name}.md").write_text(text)
    return text


def markdown(described: dict[str, str | int], settings: dict[str, object], results: list[Comparison]) -> str:
    """The table with the machine above it."""
    lines = ", ".join(f"{name} {value}" for name, value in described.items())
    return (
        f"# One step, forward and backward, preset {settings['preset']}\n\n"
        f"Machine: {lines}. {settings['rounds']} rounds, medians. "
        "Peak memory is what a step needs beyond weights and gradients.\n\n"
        + _HEAD
        + "".join(result.row() + "\n" for result in results)
    )


def _cpu_information() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _cpu_name() -> str:
    found = re.search(r"model name\s*:\s*(.+)", _cpu_information())
    return found[1].strip() if found else platform.processor()
