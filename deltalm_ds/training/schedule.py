"""The learning rate as a function of the step, so that a resumed run needs no state."""

from __future__ import annotations

from typing import Literal

ScheduleName = Literal["linear", "inverse-square-root"]


def learning_rate_at(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    total_steps: int,
    schedule: ScheduleName,
) -> float:
    """The rate of optimizer step `step`, counted from 0.

    Warm-up rises from 0 to `peak` over `warmup_steps` steps. Then "linear" falls to zero after
    `total_steps`; "inverse-square-root" falls as peak · √(warmup_steps / step) (Vaswani et al., 2017,
    section 5.3, in fairseq's form).
    """
    done = step + 1
    if done <= warmup_steps:
        return peak * done / warmup_steps
    if schedule == "inverse-square-root":
        return float(peak * (max(warmup_steps, 1) / done) ** 0.5)
    return peak * max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))
