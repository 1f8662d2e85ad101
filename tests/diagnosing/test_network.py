from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from deltalm_ds.diagnosing.network import measure_all_reduce, pairings


def nodes_of(*counts: int) -> list[str]:
    return [f"n{number}" for number, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("nodes", [nodes_of(8, 8), nodes_of(2, 2, 2), nodes_of(*[4] * 8), nodes_of(3, 1, 2)])
def test_partners_are_on_other_nodes_and_each_rank_has_one_at_a_time(nodes: list[str]) -> None:
    rounds = pairings(nodes)
    assert len(rounds) == 3
    for pairs in rounds:
        ranks = [rank for pair in pairs for rank in pair]
        assert len(set(ranks)) == len(ranks)
        assert all(nodes[one] != nodes[other] for one, other in pairs)


@pytest.mark.parametrize("nodes", [nodes_of(8, 8), nodes_of(*[1] * 4), nodes_of(*[4] * 8), nodes_of(8)])
def test_each_rank_has_three_partners(nodes: list[str]) -> None:
    rounds = pairings(nodes)
    for rank in range(len(nodes)):
        partners = {sum(pair) - rank for pairs in rounds for pair in pairs if rank in pair}
        assert len(partners) == 3


@pytest.mark.parametrize("size", [3, 5, 7])
def test_with_an_odd_number_of_nodes_none_always_waits(size: int) -> None:
    rounds = pairings(nodes_of(*[1] * size))
    waits = [set(range(size)) - {rank for pair in pairs for rank in pair} for pairs in rounds]
    assert all(len(ranks) == 1 for ranks in waits)
    assert len(set.union(*waits)) == 3


def test_two_ranks_meet_once_and_one_never() -> None:
    assert pairings(["a", "b"]) == [[(0, 1)]]
    assert pairings(["a", "a"]) == [[(0, 1)]]
    assert pairings(["a"]) == []


def bandwidth(num_ranks: int, found: float) -> float:
    """Of 8 MB in half a second, where the sum of all ranks' ones is `found`."""
    readings = itertools.count(0.0, 0.5)
    clock = SimpleNamespace(perf_counter=lambda: next(readings))

    def all_reduce(message: torch.Tensor, **_: Any) -> None:
        message.fill_(found)

    with (
        mock.patch("deltalm_ds.diagnosing.network.time", clock),
        mock.patch("deltalm_ds.diagnosing.network.dist.all_reduce", all_reduce),
    ):
        return measure_all_reduce(torch.device("cpu"), 8_000_000, num_ranks)


def test_bus_bandwidth_of_an_all_reduce() -> None:
    assert bandwidth(2, 2.0) == 8e6 / 0.5
    assert bandwidth(8, 8.0) == 2 * 7 / 8 * 8e6 / 0.5


def test_a_wrong_sum_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="something else than the number of ranks"):
        bandwidth(4, 3.0)
