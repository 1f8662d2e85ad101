"""The mixture of a run: weights, a cap on repeats, changes on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalm_ds.data.mixture import BLOCK_SIZE, block_quotas, cap_shares
from deltalm_ds.data.order import SampleOrder
from deltalm_ds.data.schedule import Change, Mixture, RunLength, parse_change, parse_weight, plan_phases
from deltalm_ds.errors import UserError


@dataclass(frozen=True)
class FakeSource:
    name: str
    num_tokens: int
    kind: str = "monolingual"
    weight: float = 1.0


SOURCES = [
    FakeSource("en", 900_000),
    FakeSource("fr", 90_000),
    FakeSource("lv", 1_000),
    FakeSource("en-fr", 10_000, "pairs"),
]
ITEMS = [90_000, 9_000, 100, 1_000]
MIXTURE = Mixture(0.5, 0.8, {})


def plan(changes=(), max_epochs=None, run=None, mixture=MIXTURE, sources=SOURCES, items=ITEMS):  # type: ignore[no-untyped-def]
    return plan_phases(sources, items, mixture, changes, max_epochs, run)


def test_weights_multiply_within_a_kind() -> None:
    plain = plan().quotas[0]
    weighted = plan(mixture=Mixture(0.5, 0.8, {"fr": 3.0})).quotas[0]
    by_recipe = plan(sources=[SOURCES[0], FakeSource("fr", 90_000, weight=3.0), *SOURCES[2:]]).quotas[0]
    assert np.array_equal(weighted, by_recipe)
    assert weighted[3] == plain[3], "pairs keep their share"
    assert weighted[1] / weighted[0] == pytest.approx(3 * plain[1] / plain[0], rel=1e-3)
    assert plan(mixture=Mixture(0.5, 0.8, {"lv": 0.0})).quotas[0][2] == 0


def test_changes_begin_with_the_next_block() -> None:
    run = RunLength(steps=10_000, batch_size=100)
    phases = plan([Change(5_000, "monolingual_share", 0.5), Change(5_000, "fr", 0.0)], run=run)
    assert phases.first_blocks.tolist() == [0, -(-5_000 * 100 // BLOCK_SIZE)]
    assert phases.quotas[0].tolist() == plan().quotas[0].tolist()
    assert phases.quotas[1][3] == BLOCK_SIZE // 2
    assert phases.quotas[1][1] == 0
    at_once = plan([Change(0, "language_exponent", 0.0)], run=run)
    assert at_once.first_blocks.tolist() == [0]
    assert at_once.quotas[0].tolist() == plan(mixture=Mixture(0.0, 0.8, {})).quotas[0].tolist()


def test_no_source_is_repeated_more_often_than_the_cap() -> None:
    run = RunLength(steps=1_000, batch_size=BLOCK_SIZE // 100)
    free, capped = plan(run=run), plan(max_epochs=20, run=run)
    num_blocks = run.num_samples / BLOCK_SIZE
    epochs = capped.quotas[0] * num_blocks / np.array(ITEMS)
    assert (free.quotas[0] * num_blocks / np.array(ITEMS)).max() > 20 >= epochs.max()
    assert capped.capped[0].tolist() == [False, False, True, True]
    assert epochs[2:] == pytest.approx(20, rel=0.02)
    # What lv may not have goes to the languages, in their proportion; pairs are all capped, so theirs too.
    assert capped.quotas[0][0] / capped.quotas[0][1] == pytest.approx(10**0.5, rel=1e-3)


def test_a_cap_that_leaves_too_little_names_one_that_does_not() -> None:
    run = RunLength(steps=1_000_000, batch_size=2_000)
    with pytest.raises(UserError, match=r"one epoch of all sources is 100,100; raise it to 19,982"):
        plan(max_epochs=10_000, run=run)
    plan(max_epochs=19_982, run=run)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["monolingual", "pairs"]), st.floats(1e-6, 1), st.floats(1e-6, 1)),
        min_size=1,
        max_size=20,
    )
)
def test_capped_shares_are_within_their_limits(rows: list[tuple[str, float, float]]) -> None:
    kinds = [kind for kind, _, _ in rows]
    shares = np.array([share for _, share, _ in rows])
    shares /= shares.sum()
    limits = np.array([limit for _, _, limit in rows])
    if limits.sum() < 1:
        with pytest.raises(ValueError, match="add up"):
            cap_shares(kinds, shares, limits)  # type: ignore[arg-type]
        return
    capped = cap_shares(kinds, shares, limits)  # type: ignore[arg-type]
    assert capped.sum() == pytest.approx(1)
    assert np.all(capped <= limits + 1e-12)
    for kind in set(kinds):
        here = np.array([other == kind for other in kinds])
        free = here & (capped < limits * (1 - 1e-9))
        if free.any():  # those that are not full keep their proportions
            assert np.ptp(capped[free] / shares[free]) < 1e-6 * (capped[free] / shares[free]).max()
    whole = np.floor(limits * BLOCK_SIZE).astype(np.int64)
    if whole.sum() >= BLOCK_SIZE and whole.min() >= 1:
        quotas = block_quotas(cap_shares(kinds, shares, whole / BLOCK_SIZE), limits=whole)  # type: ignore[arg-type]
        assert quotas.sum() == BLOCK_SIZE
        assert np.all(quotas <= whole)


def test_numbers_of_draws_go_on_over_changes() -> None:
    quotas = np.array([[5, 3, 0], [1, 3, 4]])
    order = SampleOrder(["a", "b", "c"], [7, 50, 20], quotas, seed=1, first_blocks=[0, 3])
    located = order.locate(np.arange(8 * 6))
    for source in range(3):
        draws = located.draw[located.source == source]
        assert sorted(draws.tolist()) == list(range(len(draws)))
    for end in (0, 5, 8, 24, 29, 48):
        expected = np.bincount(located.source[:end], minlength=3)
        assert order.num_draws(end).tolist() == expected.tolist()
    alone = SampleOrder(["a", "b", "c"], [7, 50, 20], quotas[0], seed=1)
    assert np.array_equal(alone.locate(np.arange(24)), [part[:24] for part in located])


@pytest.mark.parametrize("text", ["fr", "=2", "fr=", "fr=x", "fr=-1", "fr=nan", "fr=inf"])
def test_weights_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="written as fr=2"):
        parse_weight(text)


def test_changes_are_read() -> None:
    assert parse_weight("en-fr=0.5") == ("en-fr", 0.5)
    assert parse_change("400000:language-exponent=0.7") == Change(400_000, "language_exponent", 0.7)
    assert parse_change("5:en-fr=2") == Change(5, "en-fr", 2.0)
    for text in ("fr=2", "x:fr=2", "-5:fr=2", "5:fr", "5:=2", "5:fr=x"):
        with pytest.raises(UserError, match="written as 400000"):
            parse_change(text)
    for text in ("5:monolingual-share=1.5", "5:fr=-2", "5:fr=nan", "5:fr=inf"):
        with pytest.raises(UserError, match="cannot be"):
            parse_change(text)


def test_a_source_that_is_not_there_is_named() -> None:
    for mixture, changes in (
        (Mixture(0.5, 0.8, {"xx": 2.0}), []),
        (MIXTURE, [Change(5, "xx", 2.0)]),
    ):
        with pytest.raises(UserError, match="no source 'xx' to weigh; they have en, fr, lv, en-fr"):
            plan(changes, run=RunLength(10, 10), mixture=mixture)
