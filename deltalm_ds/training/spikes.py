"""Steps that would do harm: a loss far above the last ones, or a gradient that is not finite."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from deltalm_ds.data.batches import MicroBatch, StepBatches
from deltalm_ds.ops import CrossEntropy
from deltalm_ds.training.engine import StepOutcome
from deltalm_ds.training.progress import Progress
from deltalm_ds.training.spike_settings import SpikeSettings


class LossWindow:
    """The losses of the last steps, in nats a token, the same on every rank."""

    def __init__(self, settings: SpikeSettings) -> None:
        self._settings = settings
        self._losses: deque[float] = deque(maxlen=settings.spike_window)

    @property
    def limit(self) -> float:
        """The loss above which the next step is a spike; infinite until the window is full."""
        if len(self._losses) < self._settings.spike_window:
            return math.inf
        mean = statistics.fmean(self._losses)
        return mean + self._settings.spike_sigmas * statistics.pstdev(self._losses, mean)

    def add(self, loss: float) -> None:
        """Take in the loss of a step that was applied."""
        self._losses.append(loss)

    def to_state(self) -> list[float]:
        """For a checkpoint, exact."""
        return list(self._losses)

    def load_state(self, losses: Iterable[float]) -> None:
        """Go on from what `to_state` gave."""
        self._losses.extend(losses)


@dataclass(frozen=True)
class _Worst:
    """The worst micro-batch of a rank."""

    loss: float
    """In nats a token; infinite if it is not a number."""
    rank: int
    samples: tuple[int, ...]


def worst_micro_batch(
    micro_batches: Sequence[MicroBatch[NDArray[Any]]], losses: Sequence[CrossEntropy]
) -> str:
    """Which rank and samples have the highest loss of the step, in words; called by all ranks together.

    It waits for the device, and is for the few steps that are skipped.
    """
    own = _Worst(-math.inf, dist.get_rank(), ())
    for batch, sums in zip(micro_batches, losses, strict=True):
        if batch.num_target_tokens:
            loss = float(sums.loss) / batch.num_target_tokens
            loss = loss if math.isfinite(loss) else math.inf
            if loss > own.loss:
                own = _Worst(loss, own.rank, tuple(np.unique(batch.sample_ids).tolist()))
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    worst = max(everyone, key=lambda each: each.loss)
    shown = ", ".join(map(str, worst.samples[:8])) + (", …" if len(worst.samples) > 8 else "")
    what = f"a loss of {worst.loss:.2f}" if math.isfinite(worst.loss) else "a loss that is not finite"
    return f"rank {worst.rank} has {what} on samples {shown}"


class StepJudge:
    """Counts steps that do harm and says which rank and samples they come from.

    Args:
        settings: what counts as one.
        say: gets the line, on every rank.
    """

    def __init__(self, settings: SpikeSettings, say: Callable[[str], None]) -> None:
        self.window = LossWindow(settings)
        self._most_skipped, self._say = settings.max_skipped_steps, say

    def judge(
        self,
        progress: Progress,
        batches: StepBatches,
        outcome: StepOutcome,
        losses: Sequence[CrossEntropy],
    ) -> bool:
        """Take in a step, its losses by micro-batch; whether too many in a row have been skipped by now.

        Called by all ranks together.
        """
        limit = self.window.limit
        progress.spikes += outcome.is_spike
        if outcome.applied:
            progress.skipped_in_a_row = 0
            self.window.add(outcome.loss)
        else:
            progress.skipped_steps += 1
            progress.skipped_in_a_row += 1
        if outcome.is_spike or not outcome.applied:
            worst = worst_micro_batch(batches.micro_batches, losses)
            what = f"loss {outcome.loss:.4f} above {limit:.4f}" if outcome.is_spike else "no finite gradient"
            self._say(
                f"step {progress.step}{'' if outcome.applied else ' skipped'}: {what} (samples "
                f"{batches.first_position}:{batches.end_position}); {worst}"
            )
        return progress.skipped_in_a_row == self._most_skipped
