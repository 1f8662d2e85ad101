import pytest

from deltalm_ds.training.schedule import learning_rate_at

RUN = {"peak": 2e-4, "warmup_steps": 100, "total_steps": 1000}


@pytest.mark.parametrize("schedule", ["linear", "inverse-square-root"])
def test_warmup_rises_to_the_peak_in_equal_parts(schedule):
    rates = [learning_rate_at(step, schedule=schedule, **RUN) for step in range(100)]
    assert rates[0] == pytest.approx(2e-6)
    assert rates[49] == pytest.approx(1e-4)
    assert rates[99] == pytest.approx(2e-4)


def test_linear_decay_ends_at_zero_after_the_last_step():
    assert learning_rate_at(550, schedule="linear", **RUN) == pytest.approx(1e-4)
    assert learning_rate_at(999, schedule="linear", **RUN) == pytest.approx(2e-4 / 900)
    assert learning_rate_at(1000, schedule="linear", **RUN) == 0
    assert learning_rate_at(5000, schedule="linear", **RUN) == 0


def test_inverse_square_root_halves_when_the_steps_are_four_times_the_warmup():
    assert learning_rate_at(399, schedule="inverse-square-root", **RUN) == pytest.approx(1e-4)


def test_no_warmup():
    rate = learning_rate_at(0, peak=1.0, warmup_steps=0, total_steps=10, schedule="linear")
    assert rate == pytest.approx(1.0)
