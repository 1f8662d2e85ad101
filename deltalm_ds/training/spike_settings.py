"""What counts as a loss spike."""

from __future__ import annotations

from dataclasses import dataclass

from deltalm_ds.errors import UserError


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
