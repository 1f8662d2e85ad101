"""How work is shared among ranks; under a real mpirun it is tested in tests/preparing/test_mpi.py."""

from __future__ import annotations

import random

import pytest

from deltalm_ds.ranks import Ranks


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_item_goes_to_one_rank_in_order_and_costs_are_even(count: int) -> None:
    generator = random.Random(0)
    items = [(number, generator.randrange(1, 100)) for number in range(60)]
    shares = []
    for rank in range(count):
        ranks = Ranks()
        ranks.rank, ranks.count = rank, count
        shares.append(ranks.share(items, lambda item: item[1]))
    assert sorted(item for share in shares for item in share) == items
    assert all(share == sorted(share) for share in shares)
    totals = [sum(cost for _, cost in share) for share in shares]
    assert max(totals) - min(totals) <= max(cost for _, cost in items)


def test_one_process_waits_for_nobody() -> None:
    with Ranks() as ranks:
        assert (ranks.rank, ranks.count, ranks.count_on_node, ranks.is_first) == (0, 1, 1, True)
        assert ranks.from_first(lambda: 5) == 5
        assert ranks.received_progress() == 0
        ranks.barrier()
