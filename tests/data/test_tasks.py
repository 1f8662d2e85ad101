"""Every objective through the reader, from a corpus to packed batches."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_corpus import random_documents, random_pairs, write_corpus, write_random_corpus

from deltalm_ds.data.batches import (
    IGNORE,
    GlobalBatch,
    MaskedBatch,
    PackedBatch,
    StepReader,
    pack_masked,
    pack_samples,
)
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.masked import MaskedExample
from deltalm_ds.data.mixture import BLOCK_SIZE
from deltalm_ds.data.objectives import Example
from deltalm_ds.data.samples import Sample, SampleReader, ValidationReader
from deltalm_ds.data.settings import DataSettings, trains_encoder
from deltalm_ds.errors import UserError

SETTINGS = DataSettings(max_source_length=64, max_target_length=64)
ENCODER = dataclasses.replace(SETTINGS, monolingual_objective="mlm", pair_objective="tlm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_corpus(tmp_path_factory.mktemp("corpus"))


def made_reader(folder: Path, **changes: Any) -> SampleReader:
    return SampleReader(Corpus.open(folder), dataclasses.replace(SETTINGS, **changes), seed=1)


def samples_of(reader: SampleReader, objective: str, count: int) -> list[Sample]:
    return [sample for sample in reader.samples(range(count)) if sample.objective == objective]


def test_translation_reads_every_pair_once_an_epoch(folder: Path) -> None:
    corpus = Corpus.open(folder)
    pairs = next(source for source in corpus.sources("train") if source.kind == "pairs").dataset
    reader = made_reader(folder, pair_objective="translation", max_source_length=20, max_target_length=16)
    block = reader.order.locate(np.arange(BLOCK_SIZE))
    index = [group.objective for group in reader.group_names].index("translation")
    samples = reader.samples(np.flatnonzero((block.source == index) & (block.epoch == 0)))
    of_epoch = {sample.item: sample.example for sample in samples}
    assert len(of_epoch) == len(samples)
    assert sorted(of_epoch) == list(range(pairs.num_sequences // 2))
    for item, example in of_epoch.items():
        assert isinstance(example, Example)
        source, target = (pairs.sequence(2 * item + side).tolist() for side in range(2))
        assert example.source.tolist() == [*source[:-1][:19], 2]
        assert example.labels.tolist() == [*target[:-1][:15], 2]
        assert example.decoder_input.tolist() == [2, *example.labels[:-1].tolist()]
    counted = reader.num_tokens(np.array([sample.position for sample in samples])).tolist()
    lengths = [len(sample.example.source) + len(sample.example.labels) for sample in samples]
    assert counted == lengths


def test_one_side_of_a_pair(folder: Path) -> None:
    reader = made_reader(folder, pair_objective="one-side", max_source_length=40)
    first_sentinel = Corpus.open(folder).vocabulary.first_sentinel_id
    samples = samples_of(reader, "one_side", 1500)
    assert len(samples) > 100
    for sample in samples:
        assert len(sample.example.source) <= 40
        before = sample.example.source[: sample.example.source.tolist().index(2) + 1]
        corrupted = (sample.example.source >= first_sentinel).nonzero()[0]
        assert len(corrupted)
        if 2 not in sample.example.labels:  # the end of the source side is where it was
            assert np.all(corrupted < len(before)) or np.all(corrupted >= len(before))


@pytest.mark.parametrize("name", ["mlm", "tlm"])
def test_masked_text_is_the_text(folder: Path, name: str) -> None:
    reader = SampleReader(Corpus.open(folder), ENCODER, seed=1)
    windows = {task.group.language: task.windows for task in reader._tasks}
    samples = samples_of(reader, name, 300)
    assert len(samples) > 20
    for sample in samples:
        example = sample.example
        assert isinstance(example, MaskedExample)
        text = example.source.copy()
        text[example.places] = example.labels
        assert np.array_equal(text, windows[sample.language].tokens(sample.item))
        assert len(text) <= 64
    longest = max(len(sample.example.source) for sample in samples)
    assert longest == 64 or name == "tlm"
    several = sum(int((sample.example.source == 0).sum() > 1) for sample in samples)
    assert several > len(samples) / 4 or name == "mlm"  # rows of several pairs


@pytest.mark.parametrize(
    "changes",
    [
        {"pair_objective": "translation"},
        {"pair_objective": "one-side"},
        {"monolingual_objective": "mlm", "pair_objective": "tlm"},
    ],
    ids=["translation", "one-side", "masked"],
)
def test_samples_are_functions_of_seed_and_position(folder: Path, changes: dict[str, Any]) -> None:
    reader = made_reader(folder, **changes)
    copy = pickle.loads(pickle.dumps(reader))  # what a loader's worker gets
    for first, second in zip(reader.samples(range(40)), copy.samples(range(40)), strict=True):
        assert all(np.array_equal(*parts) for parts in zip(first.example, second.example, strict=True))
    valid = ValidationReader(Corpus.open(folder), dataclasses.replace(SETTINGS, **changes), 4).samples()
    assert len(valid) == 8
    assert all(len(sample.example.labels) for sample in valid)


def test_masked_batches_are_their_samples(folder: Path) -> None:
    reader = SampleReader(Corpus.open(folder), ENCODER, seed=1)
    samples = reader.samples(range(12))
    batch = StepReader(reader, 0, 1, 1).read(GlobalBatch(0, 0, 12)).micro_batches[0]
    assert isinstance(batch, MaskedBatch)
    assert batch.num_target_tokens == sum(len(sample.example.labels) for sample in samples)
    ends, target_ends = batch.source_cumulative_lengths, batch.target_cumulative_lengths
    assert batch.max_source_length == np.diff(ends).max()
    for i, sample in enumerate(samples):
        example = sample.example
        assert isinstance(example, MaskedExample)
        assert np.array_equal(batch.source_tokens[ends[i] : ends[i + 1]], example.source)
        part = slice(target_ends[i], target_ends[i + 1])
        assert np.array_equal(batch.places[part] - ends[i], example.places)
        assert np.array_equal(batch.labels[part], example.labels)
    assert batch.sample_ids.tolist() == list(range(12))
    assert {batch.source_tokens.dtype, batch.places.dtype, batch.labels.dtype} == {np.dtype(np.int64)}


def test_a_rank_without_samples_runs_a_masked_batch_of_no_weight(folder: Path) -> None:
    reader = SampleReader(Corpus.open(folder), ENCODER, seed=1)
    step = StepReader(reader, 3, 4, 1).read(GlobalBatch(0, 0, 2))
    (batch,) = step.micro_batches
    assert isinstance(batch, MaskedBatch)
    assert (step.num_source_tokens, batch.num_target_tokens, batch.labels.tolist()) == (0, 0, [IGNORE])
    assert batch.places.tolist() == [0]
    assert [len(batch.source_tokens), *batch.source_cumulative_lengths] == [1, 0, 1]


def test_the_two_kinds_of_samples_do_not_mix(folder: Path) -> None:
    masked = SampleReader(Corpus.open(folder), ENCODER, seed=1).samples(range(2))
    corrupted = made_reader(folder).samples(range(2))
    assert isinstance(pack_samples(corrupted), PackedBatch)
    for pack, samples in ((pack_samples, masked), (pack_masked, corrupted)):
        with pytest.raises(AssertionError, match="do not mix"):
            pack(samples)


@pytest.mark.parametrize(
    "changes", [{"monolingual_objective": "mlm"}, {"pair_objective": "tlm"}], ids=["mlm alone", "tlm alone"]
)
def test_an_encoder_and_a_decoder_are_not_trained_at_once(
    folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    settings = dataclasses.replace(SETTINGS, **changes)
    with pytest.raises(UserError, match=r"has monolingual text and pairs, .* mlm with tlm, or neither"):
        made_reader(folder, **changes)
    with pytest.raises(UserError, match="choose mlm with tlm"):
        ValidationReader(Corpus.open(folder), settings, 3)
    rng = np.random.default_rng(0)
    both_only_to_validate = write_corpus(
        tmp_path / "both", {"fr": random_documents(rng, 5, 9)}, {"de-fr": random_pairs(rng, 5, 9)}
    )
    with pytest.raises(UserError, match="choose mlm with tlm"):
        SampleReader(Corpus.open(both_only_to_validate), settings, seed=1)
    alone = Corpus.open(write_corpus(tmp_path / "alone", {"fr": random_documents(rng, 5, 9)}))
    assert trains_encoder(alone, settings) == (settings.monolingual_objective == "mlm")
    pairs = Corpus.open(write_corpus(tmp_path / "pairs", {"de-fr": random_pairs(rng, 5, 9)}))
    assert trains_encoder(pairs, settings) == (settings.pair_objective == "tlm")


def test_one_side_needs_its_sentinels_too(tmp_path: Path) -> None:
    folder = write_random_corpus(tmp_path, num_sentinels=9)
    settings = dataclasses.replace(SETTINGS, pair_objective="one-side", monolingual_density=0.1)
    with pytest.raises(UserError, match=r"one_side of sides of 62 tokens .* needs 10 sentinels .* 9: lower"):
        SampleReader(Corpus.open(folder), settings, seed=1)
    dense = dataclasses.replace(settings, translation_density=0.45)
    SampleReader(Corpus.open(folder), dense, seed=1)


def test_the_fingerprint_names_every_choice(folder: Path) -> None:
    assert made_reader(folder).fingerprint()["objectives"] == {
        "monolingual": "span-corruption",
        "pairs": "translation-span-corruption",
        "masked_share": 0.15,
        "form": "group",
        "densities": [0.15, 0.5],
        "mean_span_length": 3.0,
        "max_lengths": [64, 64],
    }
