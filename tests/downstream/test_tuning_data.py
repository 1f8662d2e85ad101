"""A task's data as tokens on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.tuning_data import (
    read_tags,
    read_validation,
    target_languages,
    write_tuning_data,
)
from deltalm_ds.errors import UserError
from deltalm_ds.text.tokenizer import Tokenizer, train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

TEXTS = ["nosa teki lumo bane", "teki tado nosa bane loki", "fumi gari teba lode"]
VOCABULARY = Vocabulary(24, num_sentinels=7, num_tags=2)
TAGS = {"fr": VOCABULARY.first_tag_id, "de": VOCABULARY.first_tag_id + 1}
TRAIN = [
    DownstreamExample(TEXTS[0], (TEXTS[1], TEXTS[2]), "en", "fr", id="a"),
    DownstreamExample(f"{TEXTS[1]} </s> {TEXTS[2]}", (TEXTS[0],), "en", "de"),
    DownstreamExample(TEXTS[2], ("lode",), "en", "fr"),
]
VALID = [DownstreamExample("nosa", ("teki", "lumo"), "en", "fr", id="b", group="c")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "any.model"
    path.write_bytes(train_tokenizer(TEXTS * 20, 24, 1.0))
    return path


def encoder_of(tokenizer: Path, max_source_length: int = 64) -> TextEncoder:
    opened = Tokenizer(tokenizer, VOCABULARY)
    return TextEncoder(opened, TAGS, max_source_length=max_source_length, max_target_length=64)


def write(folder: Path, tokenizer: Path, said: list[str], max_source_length: int = 64) -> Corpus:
    write_tuning_data(
        folder,
        lambda: iter(TRAIN),
        VALID,
        tokenizer=tokenizer,
        vocabulary=VOCABULARY,
        tags=TAGS,
        max_source_length=max_source_length,
        max_target_length=64,
        say=said.append,
    )
    return Corpus.open(folder, verify=True)


def test_sources_have_a_tag_and_may_have_parts(tokenizer: Path) -> None:
    encoder, opened = encoder_of(tokenizer), Tokenizer(tokenizer, VOCABULARY)
    sources, cut = encoder.sources([example.source for example in TRAIN[:2]], ["fr", "de"])
    first, second, third = (opened.encode(text) for text in TEXTS)
    assert sources[0].tolist() == [0, TAGS["fr"], *first, 2]
    assert sources[1].tolist() == [0, TAGS["de"], *second, 2, *third, 2]
    assert not cut.any()
    targets, _ = encoder.targets(["lode", ""])
    assert [target.tolist() for target in targets] == [[*opened.encode("lode"), 2], [2]]
    with pytest.raises(UserError, match="does not write 'es': it knows fr, de"):
        encoder.sources(["nosa"], ["es"])


def test_long_sides_are_cut_and_keep_their_end(tokenizer: Path) -> None:
    sources, cut = encoder_of(tokenizer, max_source_length=6).sources(TEXTS, ["fr"] * 3)
    whole, _ = encoder_of(tokenizer).sources(TEXTS, ["fr"] * 3)
    for source, full, is_cut in zip(sources, whole, cut.tolist(), strict=True):
        assert is_cut == (len(full) > 6)
        assert source.tolist() == [*full[:5], 2] if is_cut else full.tolist()
    assert cut.any()


def test_every_target_makes_a_pair_and_directions_are_sources(tokenizer: Path, tmp_path: Path) -> None:
    said: list[str] = []
    corpus = write(tmp_path / "data", tokenizer, said)
    assert said == []
    sources = (*corpus.sources("train"), *corpus.sources("valid"))
    found = {(source.split, source.name): source.dataset for source in sources}
    assert {key: data.num_documents for key, data in found.items()} == {
        ("train", "en-fr"): 3,
        ("train", "en-de"): 1,
        ("valid", "en-fr"): 1,
    }
    encoder = encoder_of(tokenizer)
    (source,), _ = encoder.sources([TEXTS[0]], ["fr"])
    targets, _ = encoder.targets([TEXTS[1], TEXTS[2], "lode", "teki"])
    data = found["train", "en-fr"]
    assert np.array_equal(data.sequence(0), source)
    assert np.array_equal(data.sequence(2), source)
    assert [data.sequence(number).tolist() for number in (1, 3, 5)] == [t.tolist() for t in targets[:3]]
    assert found["valid", "en-fr"].sequence(1).tolist() == targets[3].tolist()
    assert corpus.vocabulary == VOCABULARY
    assert read_tags(tmp_path / "data") == TAGS
    assert read_validation(tmp_path / "data") == VALID
    assert target_languages(TRAIN) == ["de", "fr"]


def test_what_is_cut_is_told(tokenizer: Path, tmp_path: Path) -> None:
    said: list[str] = []
    write(tmp_path / "data", tokenizer, said, max_source_length=6)
    assert any("train: 3 sources are longer than --max-source-length" in line for line in said)


def test_damaged_files_are_named(tokenizer: Path, tmp_path: Path) -> None:
    write(tmp_path / "data", tokenizer, [])
    (tmp_path / "data" / "tags.json").write_text('{"fr": "1"}')
    (tmp_path / "data" / "validation.jsonl").write_text('{"source": "x"}\n')
    with pytest.raises(UserError, match=r"tags\.json cannot be read"):
        read_tags(tmp_path / "data")
    with pytest.raises(UserError, match=r"validation\.jsonl cannot be read"):
        read_validation(tmp_path / "data")
