"""The C functions against the NumPy versions: equal integers, whatever the input."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_corpus import random_documents, write_corpus, write_random_corpus

from deltalm_ds.data import objectives, permutation
from deltalm_ds.data.batches import GlobalBatch, StepBatches, StepReader
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.examples import Texts
from deltalm_ds.data.indexed import IndexedDataset, bin_path, idx_path
from deltalm_ds.data.indexed_files import IndexedWriter
from deltalm_ds.data.items import ItemReader
from deltalm_ds.data.native import functions as native
from deltalm_ds.data.native.library import library
from deltalm_ds.data.objectives import SpanCorruption
from deltalm_ds.data.permutation import LARGEST_SIZE, keyed_permutation, numbered_key
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.data.windows import MonolingualWindows, PairWindows, Windows
from deltalm_ds.errors import UserError

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler here")

ROWS = 300
words = st.integers(0, 2**64 - 1)
sizes = st.one_of(st.integers(1, 70), st.integers(1, LARGEST_SIZE), st.just(LARGEST_SIZE))
corruptions = st.builds(
    SpanCorruption, st.floats(0.02, 0.5), st.floats(1.0, 9.0), st.sampled_from(["group", "t5"])
)


@contextmanager
def no_compiler() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        library.cache_clear()
        assert library() is None
        yield
    library.cache_clear()


@settings(deadline=None)
@given(st.lists(st.tuples(sizes, words, words), min_size=1, max_size=20))
def test_permutations_and_keys(elements: list[tuple[int, int, int]]) -> None:
    size = np.array([size for size, _, _ in elements])
    index = np.array([place % size for size, place, _ in elements])
    key = np.array([key for _, _, key in elements], dtype=np.uint64)
    assert np.array_equal(keyed_permutation(index, size, key), permutation._permute(index, size, key))
    number = index.astype(np.uint64)
    assert np.array_equal(numbered_key(key, number), permutation._numbered_keys(key, number))
    assert np.array_equal(numbered_key(key[0], number), permutation._numbered_keys(key[:1], number))


@pytest.mark.parametrize("size", [*range(1, 40), 65_536])
def test_permutations_that_walk_in_cycles(size: int) -> None:
    index, key = np.arange(size), np.uint64(size)
    expected = permutation._permute(index, np.array(size), key)
    assert np.array_equal(keyed_permutation(index, size, key), expected)


@settings(deadline=None)
@given(st.data(), st.lists(words, min_size=1, max_size=300), st.sampled_from([2**64, 2**56, 3, 1]))
def test_the_least_words_even_where_many_are_equal(data: st.DataObject, drawn: list[int], below: int) -> None:
    found = np.array([word % below for word in drawn], dtype=np.uint64)
    size = data.draw(st.integers(0, len(found)))
    assert np.array_equal(native.least(found, size), objectives._subset(found, size))


@settings(deadline=None)
@given(
    corruptions,
    st.lists(st.integers(0, 700), min_size=1, max_size=8),
    words,
    st.lists(words, min_size=8, max_size=8),
    st.integers(ROWS, 2**31 - 1 - 1000),
)
def test_corruption(
    objective: SpanCorruption, lengths: list[int], stream: int, drawn: list[int], first_sentinel_id: int
) -> None:
    texts = [np.arange(length, dtype=np.int32) + 1000 * i for i, length in enumerate(lengths)]
    numbers = np.array(drawn[: len(texts)], dtype=np.uint64)
    made = objective.corrupt_all(Texts.of(texts), first_sentinel_id, stream, numbers)
    assert len(made) == len(texts)
    for i, text in enumerate(texts):
        expected = objective.corrupt(text, first_sentinel_id, (stream, drawn[i]))
        for part, expected_part in zip(made.example(i), expected, strict=True):
            assert part.dtype == np.int32
            assert part.tolist() == expected_part.tolist()


def source(folder: Path, sequences: list[np.ndarray], dtype: type) -> IndexedDataset:
    with IndexedWriter(folder / "some", dtype) as writer:
        for i in range(0, len(sequences), 2):
            writer.add_document(sequences[i : i + 2])
    return IndexedDataset(folder / "some")


def sides(rng: np.random.Generator, count: int, longest: int) -> list[np.ndarray]:
    """Two sides of each pair, of at least one token of text."""
    lengths = rng.integers(1, longest + 1, 2 * count).tolist()
    texts = [np.concatenate([rng.integers(4, 100, length), [2]]) for length in lengths]
    return [np.concatenate([[0], text]) if i % 2 == 0 else text for i, text in enumerate(texts)]


def assert_read_alike(windows: Windows) -> None:
    """Every item alone and all together are what `tokens` gives; an error is the same error."""
    expected: list[list[int] | str] = []
    found: list[list[int] | str] = []
    reader = ItemReader([windows])
    for item in range(windows.num_items):
        try:
            expected.append(windows.tokens(item).tolist())
        except UserError as error:
            expected.append(str(error))
        try:
            found.append(reader.read(np.zeros(1, np.int64), np.array([item])).text(0).tolist())
        except UserError as error:
            found.append(str(error))
    assert found == expected
    if not any(isinstance(item, str) for item in expected):
        texts = reader.read(np.zeros(windows.num_items, np.int64), np.arange(windows.num_items))
        assert [texts.text(i).tolist() for i in range(windows.num_items)] == expected


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(5, 60),
    st.integers(0, 25),
    st.sampled_from([np.uint16, np.int32, np.uint8, np.int8, np.int16, np.int64]),
)
def test_items(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    num_pairs: int,
    longest: int,
    length: int,
    beyond: int,
    dtype: type,
) -> None:
    rng = np.random.default_rng(seed)
    dataset = source(tmp_path_factory.mktemp("items"), sides(rng, num_pairs, longest), dtype)
    assert_read_alike(MonolingualWindows(dataset, length, ROWS))
    assert_read_alike(PairWindows(dataset, length, length + beyond, ROWS))


@pytest.mark.parametrize(
    ("dtype", "bad"), [(np.uint16, ROWS), (np.int32, -7), (np.int32, ROWS), (np.int8, -1)]
)
def test_impossible_ids(tmp_path: Path, dtype: type, bad: int) -> None:
    dataset = source(tmp_path, sides(np.random.default_rng(0), 12, 20), dtype)
    for offset in range(0, dataset.num_tokens, 5):
        tokens = np.fromfile(bin_path(dataset.prefix), dtype)
        tokens[offset] = bad
        tokens.tofile(bin_path(dataset.prefix))
        damaged = IndexedDataset(dataset.prefix)
        assert_read_alike(MonolingualWindows(damaged, 10, ROWS))
        assert_read_alike(PairWindows(damaged, 10, 14, ROWS))
        tokens[offset] = 5
        tokens.tofile(bin_path(dataset.prefix))


def test_an_index_with_any_bit_flipped(tmp_path: Path) -> None:
    dataset = source(tmp_path, sides(np.random.default_rng(0), 6, 20), np.uint16)
    path = idx_path(dataset.prefix)
    content = path.read_bytes()
    pointers = 34 + 4 * dataset.num_sequences
    damages = [(bit, None) for bit in range(8 * pointers, 8 * (pointers + 8 * dataset.num_sequences))]
    values = [(pointers + 8 * i, value) for i in range(12) for value in (-2, 3, 2**62, 2**63 - 1, -(2**63))]
    for place, value in [*damages, *values]:
        damaged = bytearray(content)
        if value is None:
            damaged[place // 8] ^= 1 << place % 8
        else:
            struct.pack_into("<q", damaged, place, value)
        path.write_bytes(damaged)
        try:
            opened = IndexedDataset(dataset.prefix)
        except UserError:
            continue
        assert_read_alike(PairWindows(opened, 20, 24, ROWS))


def content(step: StepBatches) -> tuple[object, ...]:
    arrays = [
        (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value
        for batch in step.micro_batches
        for value in (getattr(batch, field.name) for field in dataclasses.fields(batch))
    ]
    return (*dataclasses.astuple(dataclasses.replace(step, micro_batches=[])), *arrays)


@pytest.mark.parametrize("form", ["group", "t5"])
def test_whole_steps(tmp_path: Path, form: str) -> None:
    corpus = Corpus.open(write_random_corpus(tmp_path))
    options = DataSettings(
        max_source_length=64,
        max_target_length=64,
        corruption_form=form,  # type: ignore[arg-type]
    )
    reader = StepReader(SampleReader(corpus, options, seed=3), rank=1, world_size=2, num_micro_batches=3)
    steps = [GlobalBatch(0, 0, 200), GlobalBatch(1, 200, 204), GlobalBatch(2, 204, 205)]
    compiled = [content(reader.read(step)) for step in steps]
    with no_compiler():
        assert [content(reader.read(step)) for step in steps] == compiled


def test_steps_with_items_too_short_to_learn_from(tmp_path: Path) -> None:
    document = random_documents(np.random.default_rng(0), 1, 100)[0][0]
    corpus = Corpus.open(write_corpus(tmp_path, {"fr": [[(list(document) * 5)[:65]]]}))  # 64 tokens and 1
    reader = StepReader(SampleReader(corpus, DataSettings(max_source_length=64), seed=1), 0, 1, 4)
    steps = [GlobalBatch(0, start, start + size) for start in range(30) for size in (1, 4, 7)]
    compiled = [content(reader.read(step)) for step in steps]
    assert len({step[5] for step in compiled}) > 3  # no labels, those of a window, of two, ...
    with no_compiler():
        assert [content(reader.read(step)) for step in steps] == compiled
