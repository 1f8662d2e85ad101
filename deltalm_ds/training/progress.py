"""Where a run stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Progress:
    """Counts that a checkpoint keeps."""

    step: int = 0
    """Optimizer steps done, skipped ones included."""
    next_position: int = 0
    """Global position of the first sample of the next step."""
    skipped_steps: int = 0
    """Steps without an update: their gradient was not finite, or they were spikes."""
    skipped_in_a_row: int = 0
    """Of these, the last ones without a good step since."""
    spikes: int = 0
    """Steps whose loss was far above the last ones', skipped or not."""
    validation_is_due: bool = False
    """Whether the validation of the last step was interrupted."""

    def to_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """The inverse of `to_state`."""
        return cls(**state)
