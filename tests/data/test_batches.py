from __future__ import annotations

import dataclasses
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from made_corpus import random_documents, write_corpus, write_random_corpus

from deltalm_ds.data.batches import (
    IGNORE,
    BatchPlan,
    GlobalBatch,
    PackedBatch,
    StepReader,
    pack_samples,
)
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.errors import UserError

SETTINGS = DataSettings(max_source_length=64, max_target_length=64)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> SampleReader:
    folder = write_random_corpus(tmp_path_factory.mktemp("corpus"))
    return SampleReader(Corpus.open(folder), SETTINGS, seed=1)


def sequences(batch: PackedBatch[np.ndarray]) -> dict[int, tuple[bytes, ...]]:
    """Group, source, decoder input and labels of every sample, by its id; nothing for a batch without any."""
    if not batch.num_target_tokens:
        return {}
    source_ends, target_ends = batch.source_cumulative_lengths, batch.target_cumulative_lengths
    return {
        int(sample): (
            batch.groups[i].tobytes(),
            batch.source_tokens[source_ends[i] : source_ends[i + 1]].tobytes(),
            batch.decoder_input[target_ends[i] : target_ends[i + 1]].tobytes(),
            batch.labels[target_ends[i] : target_ends[i + 1]].tobytes(),
        )
        for i, sample in enumerate(batch.sample_ids)
    }


def unused(positions: np.ndarray) -> np.ndarray:
    raise AssertionError("batches by sample count need no lengths")


def test_batches_by_samples_follow_each_other() -> None:
    plan = BatchPlan(batch_size=7)
    assert list(plan.batches(unused, end_step=3)) == [
        GlobalBatch(0, 0, 7),
        GlobalBatch(1, 7, 14),
        GlobalBatch(2, 14, 21),
    ]
    assert list(plan.batches(unused, step=2, position=14, end_step=3)) == [GlobalBatch(2, 14, 21)]
    assert list(plan.batches(unused, step=3, position=21, end_step=3)) == []


def test_batches_by_tokens_end_before_the_budget(reader: SampleReader) -> None:
    plan = BatchPlan(batch_tokens=500)
    batches = list(islice(plan.batches(reader.num_tokens), 400))
    assert [batch.step for batch in batches] == list(range(400))
    assert batches[0].first_position == 0
    assert batches[-1].end_position > 2048  # several look-aheads
    lengths = reader.num_tokens(np.arange(batches[-1].end_position + 1))
    for batch, following in pairwise(batches):
        assert following.first_position == batch.end_position
        assert lengths[batch.first_position : batch.end_position].sum() <= 500
        assert lengths[batch.first_position : batch.end_position + 1].sum() > 500
    middle = batches[123]
    resumed = plan.batches(reader.num_tokens, step=middle.step, position=middle.first_position)
    assert list(islice(resumed, 50)) == batches[123:173]


@pytest.mark.parametrize(
    ("skipped", "expected"),
    [
        ([], [(0, 4), (4, 8), (8, 12), (12, 16)]),
        ([(5, 6)], [(0, 4), (6, 10), (10, 14), (14, 18)]),
        ([(4, 8)], [(0, 4), (8, 12), (12, 16), (16, 20)]),
        ([(0, 1), (7, 9)], [(1, 5), (9, 13), (13, 17), (17, 21)]),
        ([(3, 5), (5, 30)], [(30, 34), (34, 38), (38, 42), (42, 46)]),
    ],
)
@pytest.mark.parametrize("plan", [BatchPlan(batch_size=4), BatchPlan(batch_tokens=40)])
def test_no_batch_touches_what_is_skipped(
    plan: BatchPlan, skipped: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    found = plan.batches(lambda positions: np.full(len(positions), 10), end_step=4, skipped=skipped)
    assert [(batch.first_position, batch.end_position) for batch in found] == expected


def test_a_sample_above_the_budget_is_a_batch_of_its_own() -> None:
    plan = BatchPlan(batch_tokens=10)
    lengths = np.array([3, 50, 4, 6, 1, 0, 12] + [10] * 2000)
    batches = islice(plan.batches(lambda positions: lengths[positions % 2000]), 6)
    ranges = [(batch.first_position, batch.end_position) for batch in batches]
    assert ranges == [(0, 1), (1, 2), (2, 4), (4, 6), (6, 7), (7, 8)]
    resumed = plan.batches(lambda positions: lengths[positions % 2000], step=1, position=1)
    assert next(resumed) == GlobalBatch(1, 1, 2)


@pytest.mark.parametrize("values", [{}, {"batch_size": 3, "batch_tokens": 5}])
def test_a_plan_has_one_size(values: dict[str, int]) -> None:
    with pytest.raises(UserError, match="either"):
        BatchPlan(**values)


@pytest.mark.parametrize("name", ["batch_size", "batch_tokens"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_plan_has_a_positive_size(name: str, value: int) -> None:
    with pytest.raises(UserError, match="at least one"):
        BatchPlan(**{name: value})


@pytest.mark.parametrize("num_samples", [1, 2, 5, 9, 17])
@pytest.mark.parametrize("num_micro_batches", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_split_has_the_same_samples(
    reader: SampleReader, num_samples: int, num_micro_batches: int, world_size: int
) -> None:
    first = 1020  # no empty row of pairs among the 17 samples from here on
    batch = GlobalBatch(3, first, first + num_samples)
    expected = sequences(pack_samples(reader.samples(range(first, first + num_samples))))
    assert len(expected) == num_samples
    found: dict[int, tuple[bytes, ...]] = {}
    shares, source_tokens, target_tokens = [], 0, 0
    for rank in range(world_size):
        step = StepReader(reader, rank, world_size, num_micro_batches).read(batch)
        assert (step.step, step.first_position, step.end_position) == (3, first, first + num_samples)
        assert len(step.micro_batches) == num_micro_batches
        parts = [sequences(micro_batch) for micro_batch in step.micro_batches]
        for part in parts:
            assert not part.keys() & found.keys()
            found |= part
        shares += [len(part) for part in parts]
        assert step.num_target_tokens == sum(part.num_target_tokens for part in step.micro_batches)
        source_tokens += step.num_source_tokens
        target_tokens += step.num_target_tokens
    assert found == expected
    assert max(shares) - min(shares) <= 1
    assert source_tokens == sum(len(parts[1]) for parts in expected.values()) // 8
    assert target_tokens == sum(len(parts[3]) for parts in expected.values()) // 8


@pytest.mark.parametrize(("world_size", "num_micro_batches"), [(1, 1), (2, 3), (3, 2)])
def test_shares_by_tokens(reader: SampleReader, world_size: int, num_micro_batches: int) -> None:
    batch = GlobalBatch(0, 5, 45)
    found: dict[int, tuple[bytes, ...]] = {}
    sizes = []
    for rank in range(world_size):
        step = StepReader(reader, rank, world_size, num_micro_batches, by_tokens=True).read(batch)
        assert len(step.micro_batches) == num_micro_batches
        for micro_batch in step.micro_batches:
            found |= sequences(micro_batch)
            sizes.append(int(reader.num_tokens(micro_batch.sample_ids).sum()))
            assert micro_batch.sample_ids.tolist() == sorted(micro_batch.sample_ids)
    whole = StepReader(reader, 0, 1, 1).read(batch).micro_batches[0]
    assert found == sequences(whole)
    longest = int(reader.num_tokens(np.arange(5, 45)).max())
    assert max(sizes) <= sum(sizes) / len(sizes) + longest
    if len(sizes) > 1:
        assert min(sizes) > sum(sizes) / len(sizes) - longest


def test_a_batch_is_its_samples_end_to_end(reader: SampleReader) -> None:
    samples = reader.samples([5, 900, 17])
    batch = pack_samples(samples)
    assert batch.sample_ids.tolist() == [5, 900, 17]
    assert batch.groups.tolist() == [sample.source_index for sample in samples]
    for ends, longest, names in (
        (batch.source_cumulative_lengths, batch.max_source_length, ["source"]),
        (batch.target_cumulative_lengths, batch.max_target_length, ["decoder_input", "labels"]),
    ):
        assert ends.dtype == np.int32
        for name in names:
            parts = [getattr(sample.example, name) for sample in samples]
            assert ends.tolist() == [0, *np.cumsum([len(part) for part in parts])]
            assert longest == max(len(part) for part in parts)
            tokens = getattr(batch, "source_tokens" if name == "source" else name)
            assert tokens.dtype == np.int64
            assert tokens.tolist() == np.concatenate(parts).tolist()
    assert batch.num_target_tokens == len(batch.labels)
    assert batch.sample_ids.dtype == batch.groups.dtype == np.int64


def test_a_micro_batch_without_samples_weighs_nothing() -> None:
    batch = pack_samples([])
    assert batch.num_target_tokens == 0
    assert batch.labels.tolist() == [IGNORE]
    assert batch.source_cumulative_lengths.tolist() == batch.target_cumulative_lengths.tolist() == [0, 1]
    assert len(batch.source_tokens) == len(batch.decoder_input) == 1
    assert (batch.max_source_length, batch.max_target_length) == (1, 1)
    assert len(batch.sample_ids) == len(batch.groups) == 1
    assert batch.groups[0] == 0  # a group that every reader has


def test_samples_without_labels_are_left_out(reader: SampleReader, tmp_path: Path) -> None:
    # one window of 64 tokens and one of a single token
    document = random_documents(np.random.default_rng(0), 1, 100)[0][0]
    folder = write_corpus(tmp_path, {"fr": [[(list(document) * 5)[:65]]]})
    short = SampleReader(Corpus.open(folder), SETTINGS, seed=1)
    items = short.order.locate(np.arange(50)).item
    samples = [short.sample(int(np.flatnonzero(items == item)[0])) for item in (1, 0, 1)]
    assert [len(sample.example.labels) for sample in samples] == [0, 11, 0]
    batch = pack_samples(samples)
    assert batch.sample_ids.tolist() == [samples[1].position]
    nothing = pack_samples(samples[:1])
    for field in dataclasses.fields(nothing):
        assert np.array_equal(getattr(nothing, field.name), getattr(pack_samples([]), field.name))
