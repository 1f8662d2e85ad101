from __future__ import annotations

import pytest

from deltalm_ds.diagnosing.outliers import skewed_ones, slow_ones, usual


def test_the_slow_one_is_found_with_its_share() -> None:
    assert slow_ones({0: 100.0, 1: 98.0, 2: 50.0, 3: 101.0}, 0.8) == {2: 0.5}
    assert slow_ones({0: 100.0, 1: 98.0, 2: 80.0, 3: 101.0}, 0.8) == {}, "the limit itself is healthy"


def test_of_two_the_faster_shows_what_can_be() -> None:
    assert slow_ones({"a": 40.0, "b": 100.0}, 0.8) == {"a": 0.4}


def test_one_alone_or_none_is_no_outlier() -> None:
    assert slow_ones({0: 1.0}, 0.8) == slow_ones({}, 0.8) == {}


def test_half_of_all_may_be_slow() -> None:
    """A sick node of two, each of eight ranks."""
    speeds = {rank: 100.0 if rank < 8 else 60.0 for rank in range(16)}
    assert list(slow_ones(speeds, 0.8)) == list(range(8, 16))


def test_most_decide_and_rank_0_where_they_are_even() -> None:
    assert usual(["old", "new", "new"]) == "new"
    assert usual(["old", "new", "new", "old"]) == "old"


@pytest.mark.parametrize("wrong", [0, 2])
def test_the_wrong_clock_of_three_is_found_rank_0s_too(wrong: int) -> None:
    true = {0: 0.0, 1: 0.001, 2: -0.002}
    clock = {node: offset + (30.0 if node == wrong else 0.0) for node, offset in true.items()}
    offsets = {node: time - clock[0] for node, time in clock.items()}
    found = skewed_ones(offsets, dict.fromkeys(offsets, 0.01), 1.0)
    assert list(found) == [wrong]
    assert found[wrong] == pytest.approx(30, abs=0.01)


def test_of_two_clocks_rank_0s_is_believed() -> None:
    assert skewed_ones({"a": 0.0, "b": -30.0}, {"a": 0.0, "b": 0.01}, 1.0) == {"b": -30.0}


def test_what_may_be_the_answers_delay_is_no_skew() -> None:
    assert skewed_ones({"a": 0.0, "b": 2.0}, {"a": 0.0, "b": 1.5}, 1.0) == {}
