from __future__ import annotations

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.training.watchdog_settings import Phase, WatchdogSettings, limit_seconds


@pytest.mark.parametrize(
    ("phase", "usual_step", "seconds"),
    [
        ("start", None, 1_800.0),
        ("start", 2.0, 1_800.0),
        ("step", None, 1_800.0),
        ("step", 0.5, 300.0),
        ("step", 30.0, 300.0),
        ("step", 31.0, 310.0),
        ("validation", 400.0, 900.0),
        ("save", None, 1_800.0),
    ],
)
def test_the_limit_follows_the_usual_step(phase: Phase, usual_step: float | None, seconds: float) -> None:
    assert limit_seconds(WatchdogSettings(), phase, usual_step) == seconds


def test_limits_of_ones_own() -> None:
    settings = WatchdogSettings(
        watchdog_step_factor=3.0,
        watchdog_least_seconds=2.0,
        watchdog_start_seconds=4.0,
        watchdog_validation_seconds=5.0,
        watchdog_save_seconds=6.0,
    )
    phases: list[Phase] = ["start", "step", "validation", "save"]
    assert [limit_seconds(settings, phase, 1.5) for phase in phases] == [4.0, 4.5, 5.0, 6.0]
    assert limit_seconds(settings, "step", 0.5) == 2.0


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 2e6])
@pytest.mark.parametrize("name", ["step_factor", "least_seconds", "save_seconds"])
def test_impossible_limits_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--watchdog-{name.replace('_', '-')} must be above 0 and at most"):
        WatchdogSettings(**{f"watchdog_{name}": value})
