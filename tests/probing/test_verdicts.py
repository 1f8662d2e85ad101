"""What losses decide."""

from __future__ import annotations

import numpy as np
import pytest

from deltalm_ds.data.objectives import CorruptionForm
from deltalm_ds.probing.candidates import Order
from deltalm_ds.probing.losses import Reading
from deltalm_ds.probing.verdicts import verdicts


def reading(
    sentinel: int,
    losses: list[float],
    text: float = 1.0,
    form: CorruptionForm = "group",
    order: Order = "as named",
) -> Reading:
    """Samples of 10 labels, 5 of them text, with these losses a label."""
    sums = np.array([[10 * loss, 5 * text] for loss in losses])
    return Reading(
        first_sentinel_id=sentinel, order=order, form=form, sums=sums, counts=np.full_like(sums, 5) * [2, 1]
    )


def test_a_difference_in_every_sample_is_decided() -> None:
    (verdict,) = verdicts([reading(7, [2.0, 3.0] * 8), reading(8, [1.9, 2.8] * 8)], seed=1)
    assert verdict.answer == "8"
    assert verdict.runner_up == "7"
    assert verdict.margin == pytest.approx(0.15)
    low, high = verdict.interval
    assert 0.1 < low < 0.15 < high < 0.2
    assert verdict.is_decided
    assert str(verdict).startswith("first sentinel: 8, 0.1500 nats a label lower than 7 (99%: 0.1")


def test_a_difference_within_noise_is_not() -> None:
    first = [2.0, 3.0, 2.5, 2.2] * 4
    second = [loss + change for loss, change in zip(first, [0.4, -0.35] * 8, strict=True)]
    (verdict,) = verdicts([reading(7, first), reading(8, second)], seed=1)
    assert verdict.answer == "7"
    assert verdict.margin == pytest.approx(0.025)
    assert verdict.interval[0] < 0 < verdict.interval[1]
    assert not verdict.is_decided
    assert str(verdict).startswith("first sentinel: undecided; 7 is 0.0250 nats")


def test_equal_losses_and_few_samples_decide_nothing() -> None:
    for first, second in (([2.0] * 9, [2.0] * 9), ([2.0] * 4, [1.0] * 4)):
        (verdict,) = verdicts([reading(7, first), reading(8, second)], seed=1)
        assert not verdict.is_decided


def test_the_seed_names_the_resamples() -> None:
    losses = np.random.default_rng(0).normal(2, 1, (2, 20)).tolist()
    readings = [reading(7, losses[0]), reading(8, losses[1])]
    first, again, other = (verdicts(readings, seed)[0].interval for seed in (1, 1, 2))
    assert first == again != other


def test_samples_count_by_their_labels() -> None:
    long, short = reading(7, [1.0] * 8), reading(8, [2.0] * 8)
    long.sums[:4] *= 9
    long.counts[:4] *= 9
    short.sums[:4] *= 9
    short.counts[:4] *= 9
    short.sums[4:, 0] = 0  # the half with few labels says otherwise
    (verdict,) = verdicts([long, short], seed=1)
    assert verdict.answer == "7"
    assert verdict.margin == pytest.approx((4 * 90 * 2 + 0) / 400 - 1)


def test_each_question_is_asked_where_the_others_fit_best() -> None:
    readings = [
        reading(7, [1.0] * 9, text=1.5),
        reading(8, [2.0] * 9, text=1.0),
        reading(7, [1.2] * 9, order="exchanged"),
        reading(8, [1.1] * 9, order="exchanged"),
        reading(8, [0.5] * 9, text=1.7, form="t5"),
        reading(7, [0.4] * 9, text=1.8, form="t5"),
    ]
    sentinel, order, form = verdicts(readings, seed=1)
    assert (sentinel.answer, sentinel.margin) == ("7", pytest.approx(1.0))
    assert (order.answer, order.margin) == ("as named", pytest.approx(0.2))
    assert (form.answer, form.runner_up, form.margin) == ("group", "t5", pytest.approx(0.3))
