from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.data.indexed_files import IndexedWriter, bin_path
from deltalm_ds.data.pair_items import SinglePairs, cut_each, cut_together, split_pair
from deltalm_ds.errors import UserError

ROWS = 300
lengths = st.integers(0, 60)


def dataset(folder: Path, sequences: Sequence[Sequence[int]]) -> IndexedDataset:
    prefix = folder / "some"
    with IndexedWriter(prefix, np.uint16) as writer:
        for number in range(0, len(sequences), 2):
            writer.add_document([np.array(sequence) for sequence in sequences[number : number + 2]])
    return IndexedDataset(prefix)


def sides(number: int, source_text: int, target_text: int) -> list[list[int]]:
    return [
        [0, *(10 + (number + i) % 90 for i in range(source_text)), 2],
        [*(110 + (number + i) % 90 for i in range(target_text)), 2],
    ]


def kept_of(side: list[int], length: int) -> list[int]:
    return [*side[: length - 1], side[-1]]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(lengths, lengths), max_size=8), st.integers(16, 70), st.integers(16, 70))
def test_every_pair_is_an_item_and_each_side_is_cut_to_its_limit(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[tuple[int, int]],
    max_source: int,
    max_target: int,
) -> None:
    pairs = [sides(number, *text) for number, text in enumerate(texts)]
    opened = dataset(tmp_path_factory.mktemp("pairs"), [side for pair in pairs for side in pair])
    items = SinglePairs(opened, partial(cut_each, max_source=max_source, max_target=max_target), ROWS)
    assert items.num_items == len(pairs)
    expected = [
        kept_of(source, min(len(source), max_source)) + kept_of(target, min(len(target), max_target))
        for source, target in pairs
    ]
    assert [items.tokens(item).tolist() for item in range(len(pairs))] == expected
    assert items.num_tokens(np.arange(len(pairs))).tolist() == [len(tokens) for tokens in expected]
    for tokens in expected:
        source, target = split_pair(np.array(tokens, dtype=np.int32))
        assert (source[0], source[-1], target[-1]) == (0, 2, 2)
        assert [*source.tolist(), *target.tolist()] == tokens


@given(lengths, lengths, st.integers(5, 130))
@example(1, 9, 5)
@example(9, 1, 5)
@example(0, 9, 5)
@example(9, 0, 5)
def test_both_sides_are_cut_in_proportion(source_text: int, target_text: int, capacity: int) -> None:
    source, target = source_text + 2, target_text + 1
    kept_source, kept_target = cut_together(source, target, capacity=capacity)
    assert kept_source + kept_target == min(source + target, capacity)
    assert 2 + min(source_text, 1) <= kept_source <= source
    assert 1 + min(target_text, 1) <= kept_target <= target
    if source + target > capacity:
        share = (capacity - 3) * source_text / (source_text + target_text)
        assert abs(kept_source - 2 - share) <= 1


def test_what_is_no_pair_is_named(tmp_path: Path) -> None:
    kept = partial(cut_each, max_source=16, max_target=16)
    for name, sequences, message in (
        ("odd", [[0, 5, 2]], "1 sequences, an odd number"),
        ("short", [[0], [5, 2]], r"sequences 0 and 1 are no pair"),
        ("unended", [[0, 5, 6], [7, 2]], r"pair 0 is not two sides that end with </s>"),
        ("three", [[0, 5, 2], [6, 2, 7, 2]], r"pair 0 is not two sides that end with </s>"),
    ):
        (tmp_path / name).mkdir()
        opened = dataset(tmp_path / name, sequences)
        with pytest.raises(UserError, match=message):
            SinglePairs(opened, kept, ROWS).tokens(0)


def test_a_source_may_have_parts(tmp_path: Path) -> None:
    kept = partial(cut_each, max_source=16, max_target=16)
    opened = dataset(tmp_path, [[0, 5, 2, 6, 7, 2], [8, 9, 2]])
    tokens = SinglePairs(opened, kept, ROWS).tokens(0)
    source, target = split_pair(tokens)
    assert (source.tolist(), target.tolist()) == ([0, 5, 2, 6, 7, 2], [8, 9, 2])


def test_an_id_outside_the_vocabulary_is_named(tmp_path: Path) -> None:
    prefix = dataset(tmp_path, sides(0, 5, 5)).prefix
    tokens = np.fromfile(bin_path(prefix), np.uint16)
    tokens[8] = 301
    tokens.tofile(bin_path(prefix))
    kept = partial(cut_each, max_source=16, max_target=16)
    with pytest.raises(UserError, match="holds token id 301 at token offset 8"):
        SinglePairs(IndexedDataset(prefix), kept, ROWS).tokens(0)
