"""What a run tells of its progress: a line on the console, TensorBoard and metrics.jsonl, every few steps."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch

from deltalm_ds.data.samples import GroupName
from deltalm_ds.training.distributed import Process, sum_over_ranks
from deltalm_ds.training.engine import StepOutcome
from deltalm_ds.training.flops import Peak
from deltalm_ds.training.monitor import Monitor, duration, say
from deltalm_ds.training.progress import Progress
from deltalm_ds.training.totals import Totals


class Recorder:
    """Sums over the steps since the last record, and their records; rank 0 alone has a monitor.

    Args:
        last_step: the step that the run ends with.
        first_step: the step that this process began after.
    """

    def __init__(
        self,
        process: Process,
        monitor: Monitor | None,
        groups: list[GroupName],
        peak: Peak,
        last_step: int,
    ) -> None:
        self._process, self._monitor, self._groups = process, monitor, groups
        self._peak, self._last_step = peak, last_step
        self.totals = Totals(groups, process.device)
        self.start(0)

    def start(self, first_step: int) -> None:
        """Measure the time from here, after `first_step` steps."""
        self._clock = _Clock(first_step)

    def stop_lap(self) -> None:
        """Add the time since the last record to the sums, so that a checkpoint has it."""
        self.totals.add_counts(seconds=self._clock.lap())

    def record_step(self, progress: Progress, outcome: StepOutcome, learning_rate: float) -> None:
        """Write a record of the steps since the last one and begin new sums; called by all ranks together."""
        waited = float(sum_over_ranks(self.totals.counts_of("waited_seconds")))
        self.stop_lap()
        seconds = self.totals.count("seconds")
        totals, self.totals = self.totals, Totals(self._groups, self._process.device)
        if self._monitor is None:
            return
        tokens = totals.count("source_tokens") + totals.count("target_tokens")
        flops = totals.count("flops")
        world_size = self._process.world_size
        values = {
            "loss": totals.count("loss") / max(1.0, totals.count("target_tokens")),
            **totals.losses(),
            "learning_rate": learning_rate,
            "gradient_norm": outcome.gradient_norm,
            "loss_scale": outcome.loss_scale,
            "skipped_steps": progress.skipped_steps,
            "spikes": progress.spikes,
            "samples": progress.next_position,
            "tokens_per_second": tokens / seconds,
            "samples_per_second": totals.count("samples") / seconds,
            "model_flop_utilisation": flops / seconds / (self._peak.tflops * 1e12 * world_size),
            "peak_tflops": self._peak.tflops,
            "memory_gib": _peak_memory_gib(self._process.device),
            "data_wait_share": waited / (seconds * world_size),
        }
        self._monitor.record(progress.step, "train", values)
        say(self._line(progress, values))

    def record(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Write a record of another kind."""
        if self._monitor is not None:
            self._monitor.record(step, kind, values)

    def show_text(self, step: int, title: str, text: str) -> None:
        """Put a text beside the curves and on the console."""
        if self._monitor is not None:
            self._monitor.show_text(step, title, text)
            say(text)

    def say(self, text: str) -> None:
        """Say it once, for all ranks."""
        if self._process.is_first:
            say(text)

    def _line(self, progress: Progress, values: dict[str, Any]) -> str:
        left = self._clock.seconds_per_step(progress.step) * (self._last_step - progress.step)
        skipped = f"  skipped {progress.skipped_steps}" if progress.skipped_steps else ""
        objectives = ", ".join(
            f"{group} {values[f'nll/{group}']:.3f}"
            for group in dict.fromkeys(group.objective for group in self._groups)
            if f"nll/{group}" in values
        )
        return (
            f"step {progress.step:,}/{self._last_step:,}  loss {values['loss']:.4f} ({objectives})  "
            f"lr {values['learning_rate']:.2e}  norm {values['gradient_norm']:.2f}  "
            f"{values['tokens_per_second']:,.0f} tokens/s  MFU {values['model_flop_utilisation']:.1%}  "
            f"data wait {values['data_wait_share']:.1%}{skipped}  left {duration(left)}"
        )


class _Clock:
    """Time of this process's steps, everything between them included."""

    def __init__(self, first_step: int) -> None:
        self._first_step = first_step
        self._start = self._lap = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def seconds_per_step(self, step: int) -> float:
        """Mean over this process's steps so far."""
        return (time.perf_counter() - self._start) / max(1, step - self._first_step)


def _peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held: the device's, or its own on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
