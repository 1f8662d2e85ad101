from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalm_ds.data.indexed import IndexedDataset, bin_path, idx_path
from deltalm_ds.data.indexed_files import IndexedWriter
from deltalm_ds.data.windows import SMALLEST_PAIR, MonolingualWindows, PairWindows
from deltalm_ds.errors import UserError

ROWS = 300


def dataset(
    folder: Path, documents: Sequence[Sequence[Sequence[int]]], dtype: type = np.uint16
) -> IndexedDataset:
    prefix = folder / "some"
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add_document([np.array(sequence) for sequence in document])
    return IndexedDataset(prefix)


def pair(number: int, source_text: int, target_text: int) -> list[list[int]]:
    """Source ids 10 to 99, target ids 110 to 199, so that a cut shows."""
    return [
        [0, *(10 + (number + i) % 90 for i in range(source_text)), 2],
        [*(110 + (number + i) % 90 for i in range(target_text)), 2],
    ]


pairs = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=40)


@pytest.mark.parametrize("num_tokens", [1, 9, 10, 11, 100, 101])
def test_monolingual_windows_cover_the_stream(tmp_path: Path, num_tokens: int) -> None:
    stream = (np.arange(num_tokens) % 250).tolist()
    windows = MonolingualWindows(dataset(tmp_path, [[stream[:5]], [stream[5:]]]), 10, ROWS)
    assert windows.num_items == -(-num_tokens // 10)
    items = [windows.tokens(item) for item in range(windows.num_items)]
    assert np.concatenate(items).tolist() == stream
    assert all(len(item) == 10 for item in items[:-1])
    assert windows.num_tokens(np.arange(windows.num_items)).tolist() == [len(item) for item in items]
    assert items[0].dtype == np.int32


def test_a_source_without_tokens_has_no_items(tmp_path: Path) -> None:
    empty = dataset(tmp_path, [])
    assert MonolingualWindows(empty, 10, ROWS).num_items == 0
    assert PairWindows(empty, 10, 10, ROWS).num_items == 0


@settings(deadline=None, max_examples=50)
@given(pairs, st.integers(5, 80))
def test_every_pair_stands_in_the_row_where_it_starts(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[int, int]], length: int
) -> None:
    documents = [pair(number, *sides) for number, sides in enumerate(texts)]
    opened = dataset(tmp_path_factory.mktemp("pairs"), documents)
    windows = PairWindows(opened, length, 10_000, ROWS)
    rows: list[list[int]] = [[] for _ in range(windows.num_items)]
    start = 0
    for source, target in documents:
        rows[start // length] += source + target
        start += len(source) + len(target)
    assert windows.num_items == -(-start // length)
    assert [windows.tokens(item).tolist() for item in range(windows.num_items)] == rows
    assert windows.num_tokens(np.arange(windows.num_items)).tolist() == [len(row) for row in rows]


@settings(deadline=None, max_examples=50)
@given(pairs, st.integers(5, 40), st.integers(0, 20))
def test_only_a_rows_last_pair_is_cut_and_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[int, int]], length: int, beyond: int
) -> None:
    opened = dataset(tmp_path_factory.mktemp("pairs"), [pair(n, *sides) for n, sides in enumerate(texts)])
    capacity = length + beyond
    whole, cut = PairWindows(opened, length, 10_000, ROWS), PairWindows(opened, length, capacity, ROWS)
    for item in range(cut.num_items):
        full, kept = whole.tokens(item).tolist(), cut.tokens(item).tolist()
        assert len(kept) == cut.num_tokens(np.array([item]))[0] <= capacity
        if len(full) <= capacity:
            assert kept == full
            continue
        last = len(full) - full[::-1].index(0) - 1
        assert kept[:last] == full[:last]
        if capacity - last < SMALLEST_PAIR:
            assert len(kept) == last
            continue
        assert len(kept) == capacity
        source_end, kept_end = full.index(2, last), kept.index(2, last)
        source, target = full[last + 1 : source_end], full[source_end + 1 : -1]
        kept_source, kept_target = kept[last + 1 : kept_end], kept[kept_end + 1 : -1]
        assert kept[last] == 0
        assert kept[-1] == 2
        assert 1 <= len(kept_source) <= len(source)
        assert 1 <= len(kept_target) <= len(target)
        assert source[: len(kept_source)] == kept_source
        assert target[: len(kept_target)] == kept_target
        proportional = len(source) / (len(source) + len(target)) * (len(kept_source) + len(kept_target))
        assert abs(len(kept_source) - proportional) <= 1


def test_a_long_pair_leaves_the_rows_that_it_covers_empty(tmp_path: Path) -> None:
    windows = PairWindows(dataset(tmp_path, [pair(0, 12, 15), pair(1, 2, 2)]), 10, 14, ROWS)
    # the pairs start at 0 and 30; 30 + 7 tokens
    assert windows.num_tokens(np.arange(4)).tolist() == [14, 0, 0, 7]
    assert windows.tokens(1).tolist() == []
    # of 12 and 15 tokens of text 11 are kept: 4 and 7
    assert windows.tokens(0).tolist() == [0, *range(10, 14), 2, *range(110, 117), 2]


@pytest.mark.parametrize(("dtype", "bad", "shown"), [(np.uint16, 300, "300"), (np.int32, -7, "-7")])
def test_an_id_outside_the_vocabulary_is_named_with_file_and_offset(
    tmp_path: Path, dtype: type, bad: int, shown: str
) -> None:
    opened = dataset(tmp_path, [pair(0, 8, 8), pair(1, 8, 8)], dtype)
    tokens = np.fromfile(bin_path(opened.prefix), dtype)
    tokens[[25, 30]] = bad
    tokens.tofile(bin_path(opened.prefix))
    opened = IndexedDataset(opened.prefix)
    message = rf"some\.bin holds token id {shown} at token offset 25,.*300 rows"
    windows = MonolingualWindows(opened, 10, ROWS)
    assert len(windows.tokens(0)) == 10
    with pytest.raises(UserError, match=message):
        windows.tokens(2)
    with pytest.raises(UserError, match=message):
        PairWindows(opened, 10, 30, ROWS).tokens(1)


def test_an_index_with_any_bit_flipped_gives_items_or_a_users_error(tmp_path: Path) -> None:
    """A corpus too large to be hashed: no item is longer than it may be, and no other error comes up."""
    opened = dataset(tmp_path, [pair(n, 3 + n % 4, 12 - n % 5) for n in range(8)])
    path = idx_path(opened.prefix)
    content = path.read_bytes()
    pointers = 34 + 4 * opened.num_sequences
    refused = []
    for bit in range(8 * 34, 8 * (pointers + 8 * opened.num_sequences)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            windows = PairWindows(IndexedDataset(opened.prefix), 20, 24, ROWS)
            for item in range(windows.num_items):
                tokens = windows.tokens(item)
                assert len(tokens) == windows.num_tokens(np.array([item]))[0] <= 24
        except UserError as error:
            refused.append(str(error))
    assert all("some." in message and "prepare the data again" in message for message in refused)
    assert len(refused) > 8 * 8 * opened.num_sequences / 2


@pytest.mark.parametrize("bad", [-2, 3, 10**6, 2**62])
def test_a_pointer_to_no_token_is_named(tmp_path: Path, bad: int) -> None:
    """Pointer 2, where pair 1 begins, which a row of its own asks for."""
    opened = dataset(tmp_path, [pair(0, 8, 8), pair(1, 8, 8), pair(2, 8, 8)])
    content = bytearray(idx_path(opened.prefix).read_bytes())
    struct.pack_into("<q", content, 34 + 4 * 6 + 8 * 2, bad)
    idx_path(opened.prefix).write_bytes(content)
    windows = PairWindows(IndexedDataset(opened.prefix), 19, 30, ROWS)
    with pytest.raises(UserError, match=r"some\.idx is damaged \(sequence.*prepare the data again"):
        [windows.tokens(item) for item in range(windows.num_items)]


def test_what_holds_no_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"some\.idx has 1 sequences, an odd number"):
        PairWindows(dataset(tmp_path, [[[0, 5, 2]]]), 10, 20, ROWS)


@pytest.mark.parametrize(("length", "capacity"), [(10, 9), (3, 4)])
def test_a_capacity_below_the_length_is_refused(tmp_path: Path, length: int, capacity: int) -> None:
    with pytest.raises(ValueError, match="too small"):
        PairWindows(dataset(tmp_path, [pair(0, 3, 3)]), length, capacity, ROWS)
