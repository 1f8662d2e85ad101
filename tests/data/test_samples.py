from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_corpus import random_documents, random_pairs, write_corpus, write_random_corpus

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.mixture import BLOCK_SIZE
from deltalm_ds.data.samples import GroupName, Sample, SampleReader, ValidationReader
from deltalm_ds.data.schedule import OrderForm
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.errors import UserError

SETTINGS = DataSettings(max_source_length=64, max_target_length=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def reader(folder: Path) -> SampleReader:
    return SampleReader(Corpus.open(folder), SETTINGS, seed=1)


def content(sample: Sample) -> tuple[object, ...]:
    return (
        *dataclasses.astuple(dataclasses.replace(sample, example=None)),  # type: ignore[arg-type]
        *(part.tobytes() for part in sample.example),
    )


def whole_text(sample: Sample, first_sentinel_id: int) -> list[int]:
    """The item's tokens, put together again (the group's form)."""
    spans: list[list[int]] = []
    for token in [*sample.example.decoder_input[:1].tolist(), *sample.example.labels.tolist()]:
        if token >= first_sentinel_id:
            spans.append([])
        else:
            spans[-1].append(token)
    return [
        token
        for place in sample.example.source.tolist()
        for token in (spans[place - first_sentinel_id] if place >= first_sentinel_id else [place])
    ]


def test_an_epoch_reads_every_monolingual_token_once(folder: Path) -> None:
    corpus = Corpus.open(folder)
    reader = SampleReader(corpus, SETTINGS, seed=1)
    index = reader.group_names.index(GroupName("span_corruption", "fr"))
    block = reader.order.locate(np.arange(BLOCK_SIZE))
    samples = reader.samples(np.flatnonzero((block.source == index) & (block.epoch == 0)))
    assert len(samples) == reader.order.num_items[index]
    by_item = sorted(samples, key=lambda sample: sample.item)
    first_sentinel = corpus.vocabulary.first_sentinel_id
    source = next(source for source in corpus.sources("train") if source.name == "fr")
    stream = [token for sample in by_item for token in whole_text(sample, first_sentinel)]
    assert stream == source.dataset.tokens(0, source.num_tokens).tolist()


def test_samples_are_the_same_alone_in_any_order_and_in_another_process(
    folder: Path, reader: SampleReader
) -> None:
    together = [content(sample) for sample in reader.samples(range(60))]
    copy = pickle.loads(pickle.dumps(reader))  # what a loader's worker gets
    assert [content(copy.sample(position)) for position in range(59, -1, -1)] == together[::-1]
    reopened = SampleReader(Corpus.open(folder), SETTINGS, seed=1)
    assert [content(sample) for sample in reopened.samples(np.arange(60))] == together
    other = SampleReader(Corpus.open(folder), SETTINGS, seed=2)
    assert [content(sample) for sample in other.samples(range(60))] != together


def test_an_item_has_other_masks_in_its_next_epoch(reader: SampleReader) -> None:
    block = reader.order.locate(np.arange(BLOCK_SIZE))
    samples = reader.samples(np.flatnonzero((block.source == 0) & (block.item == 3) & (block.epoch < 3)))
    assert sorted(sample.epoch for sample in samples) == [0, 1, 2]
    assert len({sample.example.source.tobytes() for sample in samples}) == 3


def test_the_seed_names_the_masks_too(tmp_path: Path) -> None:
    corpus = Corpus.open(write_corpus(tmp_path, {"fr": [[[0, *range(10, 60), 2]]]}))  # one item, so no order
    sources = [SampleReader(corpus, SETTINGS, seed).sample(0).example.source for seed in (1, 2)]
    assert not np.array_equal(*sources)


def test_groups_name_objective_and_language(reader: SampleReader) -> None:
    assert reader.group_names == [
        GroupName("span_corruption", "de"),
        GroupName("span_corruption", "fr"),
        GroupName("translation_span_corruption", "de-fr"),
    ]
    samples = reader.samples(range(200))
    assert {sample.source_index for sample in samples} == {0, 1, 2}
    for sample in samples:
        assert (sample.objective, sample.language) == reader.group_names[sample.source_index]
        masked = len(sample.example.labels) / max(1, len(sample.example.source))
        if len(sample.example.source) > 30:
            assert (masked > 0.5) == (sample.objective == "translation_span_corruption")


def test_token_counts_come_without_reading(reader: SampleReader, folder: Path) -> None:
    first_sentinel = Corpus.open(folder).vocabulary.first_sentinel_id
    samples = reader.samples(range(300))
    counted = reader.num_tokens(np.arange(300)).tolist()
    assert counted == [len(whole_text(sample, first_sentinel)) for sample in samples]


@pytest.mark.parametrize("form", ["group", "t5"])
def test_no_sample_is_longer_than_the_settings_say(folder: Path, form: str) -> None:
    settings = dataclasses.replace(SETTINGS, corruption_form=form)  # type: ignore[arg-type]
    samples = SampleReader(Corpus.open(folder), settings, seed=1).samples(range(600))
    sources = [len(s.example.source) for s in samples if s.objective == "span_corruption"]
    assert max(sources) == (
        64 if form == "t5" else 58
    )  # T5's windows fill the source, the group's have 64 tokens
    assert max(len(sample.example.source) for sample in samples) <= 64
    assert max(len(sample.example.labels) for sample in samples) <= 64


def test_more_spans_than_sentinels_are_refused_before_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    settings = DataSettings(corruption_form="t5")
    with_pairs = Corpus.open(write_random_corpus(tmp_path / "pairs"))
    with pytest.raises(UserError, match=r"translation_span_corruption .*needs 128 sentinels .* has 100"):
        SampleReader(with_pairs, settings, seed=1)
    with pytest.raises(UserError, match="needs 128 sentinels"):
        ValidationReader(with_pairs, settings, 10)
    SampleReader(Corpus.open(write_random_corpus(tmp_path / "more", num_sentinels=128)), settings, seed=1)
    alone = write_corpus(tmp_path / "alone", {"fr": random_documents(rng, 30, 40)})
    SampleReader(Corpus.open(alone), settings, seed=1)


def test_an_id_outside_the_vocabulary_names_file_and_offset(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, {"fr": random_documents(np.random.default_rng(0), 10, 40)})
    file = folder / "train" / "fr.bin"
    tokens = np.fromfile(file, np.uint16)
    tokens[17] = 9999
    tokens.tofile(file)
    reader = SampleReader(Corpus.open(folder), SETTINGS, seed=1)
    position = int(np.flatnonzero(reader.order.locate(np.arange(1000)).item == 0)[0])
    with pytest.raises(UserError, match=r"fr\.bin holds token id 9999 at token offset 17,"):
        reader.sample(position)


def test_no_training_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training tokens"):
        SampleReader(Corpus.open(write_corpus(tmp_path, {"fr": []})), SETTINGS, seed=1)


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"seed": 2}, {"seed"}),
        ({"max_source_length": 60}, {"objectives"}),
        ({"max_target_length": 60}, {"objectives"}),
        ({"corruption_form": "t5"}, {"objectives"}),
        ({"monolingual_density": 0.2}, {"objectives"}),
        ({"translation_density": 0.4}, {"objectives"}),
        ({"mean_span_length": 4.0}, {"objectives"}),
        ({"pair_objective": "translation"}, {"objectives"}),
        ({"pair_objective": "one-side"}, {"objectives"}),
        ({"monolingual_objective": "mlm", "pair_objective": "tlm"}, {"objectives"}),
        ({"language_exponent": 0.5}, {"mixture"}),
        ({"monolingual_share": 0.7}, {"mixture"}),
        ({"num_loader_workers": 5}, set()),
    ],
)
def test_the_fingerprint_names_what_changed(folder: Path, changed: dict[str, int], parts: set[str]) -> None:
    def fingerprint(seed: int = 1, **values: object) -> dict[str, str]:
        settings = dataclasses.replace(SETTINGS, **values)  # type: ignore[arg-type]
        return SampleReader(Corpus.open(folder), settings, seed).fingerprint()

    before, after = fingerprint(), fingerprint(**changed)  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == parts
    assert before.keys() == after.keys()


def test_the_fingerprint_knows_data_and_tokenizer(tmp_path: Path, reader: SampleReader) -> None:
    corpus = Corpus.open(write_random_corpus(tmp_path, num_sentinels=90))
    before, after = reader.fingerprint(), SampleReader(corpus, SETTINGS, seed=1).fingerprint()
    assert after["data"] != before["data"] == Corpus.open(reader._corpus.path).fingerprint
    assert after["tokenizer"] == before["tokenizer"] == corpus.manifest.tokenizer.sha256


def test_validation_is_a_fixed_set_of_the_first_items(folder: Path) -> None:
    corpus = Corpus.open(folder)
    few, many = ValidationReader(corpus, SETTINGS, 3), ValidationReader(corpus, SETTINGS, 1000)
    assert few.group_names == [
        GroupName("span_corruption", "de"),
        GroupName("translation_span_corruption", "de-fr"),
    ]
    assert [(sample.language, sample.item) for sample in few.samples()] == [
        (language, item) for language in ("de", "de-fr") for item in range(3)
    ]
    assert [sample.position for sample in few.samples()] == list(range(6)) == list(range(len(few)))
    assert [content(few.sample(number)) for number in range(6)] == [content(s) for s in few.samples()]
    of_many = {(sample.language, sample.item): sample for sample in many.samples()}
    for sample in few.samples():  # a larger set holds the same masks
        other = of_many[sample.language, sample.item]
        assert all(np.array_equal(*parts) for parts in zip(sample.example, other.example, strict=True))
    reseeded = ValidationReader(corpus, SETTINGS, 3, seed=5).samples()
    assert content(reseeded[0]) != content(few.sample(0))
    with pytest.raises(IndexError):
        few.sample(6)


def test_without_validation_data_the_set_is_empty(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, {"fr": random_documents(np.random.default_rng(0), 10, 40)})
    reader = ValidationReader(Corpus.open(folder), SETTINGS, 10)
    assert len(reader) == 0
    assert reader.samples() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_source_length": 15}, "max_source_length must be at least 16"),
        ({"max_target_length": 0}, "max_target_length must be at least 16"),
        ({"language_exponent": -0.1}, "language_exponent"),
        ({"language_exponent": float("nan")}, "language_exponent"),
        ({"monolingual_share": 1.5}, "monolingual_share"),
        ({"num_loader_workers": -1}, "num_loader_workers"),
        ({"monolingual_density": 1.0}, "density"),
        ({"translation_density": 0.9}, "density"),
        ({"mean_span_length": 0.0}, "mean span length"),
        ({"corruption_form": "bart"}, "choose group or t5"),
        ({"masked_share": 1.0}, "masked share"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, float], message: str) -> None:
    build: Callable[..., DataSettings] = DataSettings
    with pytest.raises(UserError, match=message):
        build(**values)


def test_samples_and_batches_are_made_without_torch() -> None:
    code = "import sys, deltalm_ds.data.batches; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_block_of_all_items_is_an_epoch(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    counts = {"en-fr": 37, "en-de": 11, "de-en": 80}
    corpus = Corpus.open(
        write_corpus(tmp_path, {name: random_pairs(rng, count, 9) for name, count in counts.items()})
    )
    settings = DataSettings(pair_objective="translation", language_exponent=1.0)
    reader = SampleReader(corpus, settings, seed=5, form=OrderForm(block_size=128, by_items=True))
    for epoch in range(3):
        seen = Counter(
            (sample.language, sample.item, sample.epoch)
            for sample in reader.samples(range(128 * epoch, 128 * epoch + 128))
        )
        expected = {(name, item, epoch) for name, count in counts.items() for item in range(count)}
        assert seen == Counter(expected)
    hot = DataSettings(pair_objective="translation", language_exponent=0.2)
    even = SampleReader(corpus, hot, seed=5, form=OrderForm(block_size=128, by_items=True))
    powers = np.array([count**0.2 for count in sorted(counts.values())])
    quotas = np.sort(even.phases.quotas[0])
    assert np.abs(quotas - 128 * powers / powers.sum()).max() < 1
