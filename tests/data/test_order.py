from __future__ import annotations

import numpy as np
import pytest

from deltalm_ds.data.mixture import BLOCK_SIZE, block_quotas
from deltalm_ds.data.order import SampleOrder

NAMES = ["de", "fr", "de-fr"]


def small_order(seed: int = 1) -> SampleOrder:
    return SampleOrder(NAMES, [7, 20, 3], [5, 10, 1], seed)


def test_every_block_holds_every_source_by_its_quota() -> None:
    quotas = block_quotas(np.array([0.3, 0.5, 0.1999, 0.0001]))
    order = SampleOrder(["a", "b", "c", "d"], [10**10, 77, 5000, 2], quotas, seed=3)
    for block in (0, 1, 1_000_003):
        places = np.arange(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE)
        source = order.locate(places).source
        assert np.array_equal(np.bincount(source, minlength=4), quotas)
        # mixed within the block, too: each sixteenth is near its share of the first source
        parts = (source.reshape(16, -1) == 0).sum(1)
        assert np.all(np.abs(parts - quotas[0] / 16) < 5 * np.sqrt(quotas[0] / 16))


def test_draws_of_a_source_are_numbered_without_gaps() -> None:
    location = small_order().locate(np.arange(16 * 9))
    for number, quota in enumerate([5, 10, 1]):
        assert sorted(location.draw[location.source == number].tolist()) == list(range(9 * quota))


def test_every_item_comes_once_an_epoch() -> None:
    location = small_order().locate(np.arange(16 * 28))
    for number, num_items in enumerate([7, 20, 3]):
        here = location.source == number
        assert np.array_equal(location.epoch[here], location.draw[here] // num_items)
        for epoch in range(location.draw[here].max() // num_items):
            items = location.item[here & (location.epoch == epoch)]
            assert sorted(items.tolist()) == list(range(num_items))


def test_every_item_comes_once_an_epoch_of_a_real_block() -> None:
    order = SampleOrder(["a", "b"], [20_000, 100], [50_000, BLOCK_SIZE - 50_000], seed=5)
    location = order.locate(np.arange(2 * BLOCK_SIZE))
    for epoch in range(5):
        items = location.item[(location.source == 0) & (location.epoch == epoch)]
        assert np.array_equal(np.sort(items), np.arange(20_000))


def test_epochs_sources_and_seeds_have_their_own_orders() -> None:
    def first_epochs(name: str, seed: int) -> tuple[list[int], list[int]]:
        location = SampleOrder([name], [50], [10], seed).locate(np.arange(100))
        by_draw = location.item[np.argsort(location.draw)].tolist()
        return by_draw[:50], by_draw[50:]

    orders = [order for name, seed in (("a", 1), ("b", 1), ("a", 2)) for order in first_epochs(name, seed)]
    assert len({tuple(order) for order in orders}) == 6
    of_seeds = [small_order(seed).locate(np.arange(16)).source for seed in (1, 2)]
    assert not np.array_equal(*of_seeds)
    blocks = small_order().locate(np.arange(64)).source.reshape(4, 16)
    assert len({tuple(block) for block in blocks.tolist()}) == 4


def test_a_position_alone_decides() -> None:
    order = small_order()
    whole = np.stack(order.locate(np.arange(500)))
    shuffled = np.random.default_rng(0).permutation(500)
    assert np.array_equal(np.stack(order.locate(shuffled)), whole[:, shuffled])
    assert np.stack(order.locate([123])).ravel().tolist() == whole[:, 123].tolist()


def test_numbers_beyond_32_bits_work() -> None:
    quotas = np.array([BLOCK_SIZE - 1, 1])
    order = SampleOrder(["huge", "small"], [10**10, 3], quotas, seed=1)
    positions = np.arange(10**12, 10**12 + 200_000)
    location = order.locate(positions)
    here = location.source == 0
    assert np.array_equal(location.epoch[here], location.draw[here] // 10**10)
    assert set(location.epoch[here].tolist()) <= {99, 100}
    assert location.item[here].min() >= 0
    assert location.item[here].max() > 9.9e9
    assert location.item[here].max() < 10**10
    assert np.unique(location.draw[here]).size == np.count_nonzero(here)
    assert np.all(location.item[~here] < 3)


def test_the_order_is_the_same_for_ever() -> None:
    assert np.stack(small_order().locate([0, 1, 1000])).T.tolist() == [
        [0, 2, 0, 4],
        [1, 1, 0, 4],
        [1, 626, 31, 0],
    ]


def test_a_quota_without_items_is_refused() -> None:
    with pytest.raises(ValueError, match="without items"):
        SampleOrder(["a", "b"], [5, 0], [3, 1], seed=1)
    SampleOrder(["a", "b"], [5, 0], [3, 0], seed=1)
