"""The order at full scale, by its arithmetic alone: 10^10 samples of 100 sources, a cap and a change.

The sources' items are in proportion 1 to 10,000. Statistical tests have fixed seeds and thresholds that a
right order exceeds once in 10,000 trials.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.data.indexed_files import IndexedFiles
from deltalm_ds.data.mixture import BLOCK_SIZE
from deltalm_ds.data.order import SampleOrder
from deltalm_ds.data.permutation import keyed_permutation, numbered_key, stream_key
from deltalm_ds.data.schedule import Change, Mixture, Phases, RunLength, plan_phases
from deltalm_ds.data.windows import MonolingualWindows

NUM_SOURCES, NUM_SAMPLES = 100, 10**10
RUN = RunLength(steps=5_000_000, batch_size=2_000)
CHANGE_AT = 3_000_000
MAX_EPOCHS = 30.0
SEED = 11
CHI_SQUARE_OF_63 = 114.0  # exceeded once in 10,000 times with 63 degrees of freedom


@dataclass(frozen=True)
class FakeSource:
    name: str
    num_tokens: int
    kind: str
    weight: float = 1.0


NUM_ITEMS = np.round(np.geomspace(1, 10_000, NUM_SOURCES) * 5_000).astype(np.int64)
SOURCES = [
    FakeSource(f"s{index}", 512 * int(items), "pairs" if index % 5 == 0 else "monolingual")
    for index, items in enumerate(NUM_ITEMS)
]


@pytest.fixture(scope="module")
def phases() -> Phases:
    return plan_phases(
        SOURCES,  # type: ignore[arg-type]
        NUM_ITEMS.tolist(),
        Mixture(0.3, 0.8, {"s7": 2.0}),
        [Change(CHANGE_AT, "monolingual_share", 0.6)],
        MAX_EPOCHS,
        RUN,
    )


@pytest.fixture(scope="module")
def order(phases: Phases) -> SampleOrder:
    names = [source.name for source in SOURCES]
    return SampleOrder(names, NUM_ITEMS.tolist(), phases.quotas, seed=SEED, first_blocks=phases.first_blocks)


def test_it_is_as_large_as_it_says(order: SampleOrder, phases: Phases) -> None:
    assert RUN.num_samples == NUM_SAMPLES
    assert NUM_ITEMS[-1] / NUM_ITEMS[0] == 10_000
    assert phases.capped.any()
    assert phases.first_blocks.tolist() == [0, -(-CHANGE_AT * RUN.batch_size // BLOCK_SIZE)]


def test_every_block_has_its_exact_quotas(order: SampleOrder, phases: Phases) -> None:
    change = int(phases.first_blocks[1])
    last = NUM_SAMPLES // BLOCK_SIZE - 1
    for block in (0, 1, change - 1, change, last // 2, last):
        source = order.locate(np.arange(BLOCK_SIZE) + block * BLOCK_SIZE).source
        expected = phases.quotas[int(block >= change)]
        assert np.array_equal(np.bincount(source, minlength=NUM_SOURCES), expected)


def test_no_source_exceeds_the_cap_and_draws_add_up(order: SampleOrder) -> None:
    draws = order.num_draws(NUM_SAMPLES)
    assert draws.sum() == NUM_SAMPLES
    epochs = draws / NUM_ITEMS
    # Quotas are whole, so the least sources may have one sample a block; the last block is cut.
    least = NUM_SAMPLES / BLOCK_SIZE / NUM_ITEMS
    assert np.all(epochs <= np.maximum(MAX_EPOCHS, least) * 1.0001 + 1)


def test_blocks_hold_consecutive_draws(order: SampleOrder, phases: Phases) -> None:
    """Block b has the draws from `num_draws` before it to `num_draws` after it, each once."""
    change = int(phases.first_blocks[1])
    for block in (0, change - 1, change, NUM_SAMPLES // BLOCK_SIZE - 1):
        located = order.locate(np.arange(BLOCK_SIZE) + block * BLOCK_SIZE)
        before, after = (order.num_draws(position * BLOCK_SIZE) for position in (block, block + 1))
        for source in range(NUM_SOURCES):
            draws = np.sort(located.draw[located.source == source])
            assert np.array_equal(draws, np.arange(before[source], after[source]))
        assert np.array_equal(located.epoch, located.draw // NUM_ITEMS[located.source])


@pytest.mark.parametrize("source", [0, 5, 40])
def test_the_draws_of_an_epoch_are_every_item_once(order: SampleOrder, source: int) -> None:
    """With the test above: every sample exactly once an epoch of its source."""
    items = int(NUM_ITEMS[source])
    key = stream_key("source", SEED, SOURCES[source].name)
    for epoch in (0, 1, 29):
        drawn = keyed_permutation(np.arange(items), items, numbered_key(key, epoch))
        assert np.array_equal(np.sort(drawn), np.arange(items))
        assert not np.array_equal(drawn, np.arange(items))
    located = order.locate(np.arange(BLOCK_SIZE) + 77_777 * BLOCK_SIZE)
    here = located.source == source
    turn = located.draw[here] % items
    assert np.array_equal(
        located.item[here], keyed_permutation(turn, items, numbered_key(key, located.epoch[here]))
    )


def test_an_epoch_of_the_largest_source_is_a_permutation() -> None:
    """All of its 50 million items are too many here: a hundredth of them never collide."""
    items = int(NUM_ITEMS[-1])
    assert items == 50_000_000
    drawn = keyed_permutation(np.arange(0, items, 100), items, 12345)
    assert len(np.unique(drawn)) == len(drawn)


def test_items_are_drawn_uniformly_and_independently(order: SampleOrder) -> None:
    """Of samples far into the run: the items' places are uniform, neighbours are not related."""
    positions = np.arange(40 * BLOCK_SIZE, 42 * BLOCK_SIZE) + (1 << 32)
    located = order.locate(positions)
    largest = located.item[located.source == NUM_SOURCES - 1]
    place = largest / NUM_ITEMS[-1]
    counts = np.bincount((place * 64).astype(int), minlength=64)
    expected = len(place) / 64
    assert np.sum((counts - expected) ** 2 / expected) < CHI_SQUARE_OF_63
    correlation = np.corrcoef(place[:-1], place[1:])[0, 1]
    assert abs(correlation) < 3.9 / np.sqrt(len(place))


def test_sources_are_spread_evenly_within_a_block(order: SampleOrder, phases: Phases) -> None:
    source = order.locate(np.arange(BLOCK_SIZE) + 999 * BLOCK_SIZE).source
    largest = np.flatnonzero(source == NUM_SOURCES - 1)
    counts = np.bincount(largest // (BLOCK_SIZE // 64), minlength=64)
    expected = len(largest) / 64
    assert np.sum((counts - expected) ** 2 / expected) < CHI_SQUARE_OF_63


def test_any_position_is_found_by_itself(order: SampleOrder) -> None:
    """The same alone and among others, with memory for the asked positions only, wherever they are."""
    positions = np.array([0, 1, BLOCK_SIZE, NUM_SAMPLES // 3, NUM_SAMPLES - 1])
    together = order.locate(positions)
    peaks = []
    for index, position in enumerate(positions.tolist()):
        tracemalloc.start()
        alone = order.locate([position])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [int(part[0]) for part in alone] == [int(part[index]) for part in together]
    assert max(peaks) < 20_000


def test_a_huge_dataset_is_opened_without_reading_it(tmp_path: Path) -> None:
    """A billion sequences in sparse files: less than 100 kB of memory, and windows are found at once."""
    files = IndexedFiles(tmp_path / "x", np.dtype(np.uint16), 10**9, 1, 10**12)
    try:
        files.create()
    except OSError:
        pytest.skip("no sparse files of terabytes here")
    tracemalloc.start()
    files.write(0, 0, b"\0" * 1024, np.array([[512]], dtype=np.int32))
    files.write(10**9 - 1, 10**12 - 512, b"\0" * 1024, np.array([[512]], dtype=np.int32))
    dataset = IndexedDataset(tmp_path / "x")
    windows = MonolingualWindows(dataset, 512, 1000)
    assert windows.num_items == -(-(10**12) // 512)
    assert len(windows.tokens(windows.num_items - 1)) == (10**12 % 512 or 512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
