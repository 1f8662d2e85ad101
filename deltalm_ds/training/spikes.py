"""Steps that would do harm: a loss far above the last ones, or a gradient that is not finite."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from deltalm_ds.data.batches import MicroBatch
from deltalm_ds.errors import UserError
from deltalm_ds.ops import CrossEntropy


@dataclass(frozen=True, kw_only=True)
class SpikeSettings:
    """What counts as a loss spike, and what is done about steps that would do harm."""

    spike_sigmas: float = 6.0
    """A step is a spike if its loss lies this many standard deviations above the mean of the last
    --spike-window steps; it is said and counted."""
    spike_window: int = 128
    """Steps that a loss is compared with; none is a spike before there are as many."""
    skip_spikes: bool = False
    """Make no update with a step that is a spike, as with one whose gradient is not finite."""
    max_skipped_steps: int = 10
    """End the run after this many skipped steps in a row."""

    def __post_init__(self) -> None:
        if self.spike_sigmas <= 0:
            raise UserError(f"--spike-sigmas must be above 0, not {self.spike_sigmas}")
        for name, least in (("spike_window", 2), ("max_skipped_steps", 1)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be at least {least}, not {getattr(self, name)}")


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
