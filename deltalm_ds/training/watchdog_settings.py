"""How long a rank may show no progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deltalm_ds.errors import UserError

Phase = Literal["start", "step", "validation", "save"]


@dataclass(frozen=True, kw_only=True)
class WatchdogSettings:
    """How long a rank may show no progress before the job is ended with its stacks left in OUTPUT/hang."""

    no_watchdog: bool = False
    """Let a job that hangs hang. Else it leaves all ranks' Python stacks in OUTPUT/hang and exits with 85."""
    watchdog_step_factor: float = 10.0
    """Waiting for data, a micro-batch or an update may take this many times the usual step, the median of the
    last 32; steps of unequal samples differ by less."""
    watchdog_least_seconds: float = 300.0
    """But no less than this: a shared file system that fails over stalls short steps for longer than ten."""
    watchdog_start_seconds: float = 1_800.0
    """The limit until the second step is done: kernels are compiled and connections made."""
    watchdog_validation_seconds: float = 900.0
    """The limit for a batch of validation, generated texts and scores included."""
    watchdog_save_seconds: float = 1_800.0
    """The limit for a checkpoint or model. Half an hour writes 1.8 TB at 1 GB/s."""

    def __post_init__(self) -> None:
        for name in ("step_factor", "least_seconds", "start_seconds", "validation_seconds", "save_seconds"):
            value = getattr(self, f"watchdog_{name}")
            if not 0 < value <= 1e6:
                option = f"--watchdog-{name.replace('_', '-')}"
                raise UserError(f"{option} must be above 0 and at most 1,000,000, not {value:g}")


def limit_seconds(settings: WatchdogSettings, phase: Phase, usual_step: float | None) -> float:
    """How long a rank may show no progress.

    Args:
        settings: the limits.
        phase: what it is at.
        usual_step: seconds of a usual step; None while there is none.
    """
    if phase == "validation":
        return settings.watchdog_validation_seconds
    if phase == "save":
        return settings.watchdog_save_seconds
    if phase == "start" or usual_step is None:
        return settings.watchdog_start_seconds
    return max(settings.watchdog_least_seconds, settings.watchdog_step_factor * usual_step)
