"""Folders for CTranslate2."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from export_samples import described, sample_model
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.exporting.model import ExportModel
from deltalm_ds.exporting.token_names import token_names
from deltalm_ds.weights import TaskDescription

ctranslate2 = pytest.importorskip("ctranslate2")

from deltalm_ds.exporting.ct2 import made_sources, measure, text_sources, write_ctranslate2  # noqa: E402

TAGS = {"fr": 58, "zh-Hant": 59}
TASK = TaskDescription(
    name="translation",
    directions=(("en", "fr"), ("en", "zh-Hant")),
    tags=TAGS,
    max_source_length=20,
    max_target_length=20,
    metric="bleu",
)


def like_trained(**changes: object) -> ExportModel:
    """Weights that make LayerNorm's inputs vary by about 1, as trained models' do."""
    model = sample_model(num_sentinels=5, mask_id=25, first_sentinel_id=26, **changes)
    generator = torch.Generator().manual_seed(3)

    def drawn(name: str, tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name:
            return noise * 0.1 + (1 if name.endswith("weight") else 0)
        return noise * (0.1 if tensor.ndim == 1 else 1.5 * tensor.shape[1] ** -0.5)

    weights = {name: drawn(name, tensor) for name, tensor in model.weights.items()}
    return dataclasses.replace(model, weights=weights)


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 1e-4),
        ({"embedding_layer_norm": False}, 1e-4),
        ({"pre_layer_norm": True}, 2e-5),
        ({"decoder": "standard"}, 2e-5),
    ],
)
def test_the_same_log_probabilities(changes: dict[str, Any], tolerance: float, tmp_path: Path) -> None:
    model = described(like_trained(**changes), tmp_path, TASK)
    write_ctranslate2(model, tmp_path / "ct2", "float32")
    found = measure(model, tmp_path / "ct2", made_sources(model))
    assert found.num_outputs == found.num_identical == 64
    assert found.num_tokens > 300
    assert 0 < found.log_probability <= tolerance


@pytest.mark.parametrize("beam", [1, 4])
def test_sentences_that_are_done_before_others(beam: int, tmp_path: Path) -> None:
    model = like_trained()
    table = model.weights["embedding.weight"].clone()
    table[2] *= 4  # so that `</s>` is often very likely or very unlikely
    model = described(
        dataclasses.replace(model, weights={**model.weights, "embedding.weight": table}), tmp_path
    )
    write_ctranslate2(model, tmp_path / "ct2", "float32")
    translator = ctranslate2.Translator(str(tmp_path / "ct2"))
    names = token_names(model.described(), 60)
    sources = [[names[token] for token in source] for source in made_sources(model)]
    options = {"beam_size": beam, "max_decoding_length": 12}
    together = [found.hypotheses[0] for found in translator.translate_batch(sources, **options)]
    alone = [translator.translate_batch([source], **options)[0].hypotheses[0] for source in sources]
    assert len({len(tokens) for tokens in together}) > 1
    assert together == alone


def test_int8(tmp_path: Path) -> None:
    model = described(like_trained(), tmp_path, TASK)
    write_ctranslate2(model, tmp_path / "ct2", "int8")
    write_ctranslate2(model, tmp_path / "float32", "float32")
    sizes = [(tmp_path / name / "model.bin").stat().st_size for name in ("ct2", "float32")]
    assert sizes[0] < 0.5 * sizes[1]
    found = measure(model, tmp_path / "ct2", made_sources(model))
    assert 1e-4 < found.log_probability < 1
    assert found.num_identical > 0
    assert f"{found.num_identical} of 64" in str(found)


def test_another_model_is_noticed(tmp_path: Path) -> None:
    model = described(like_trained(), tmp_path, TASK)
    weights = {**model.weights, "decoder.blocks.1.first_feed_forward.fc1_bias": torch.zeros(48)}
    write_ctranslate2(dataclasses.replace(model, weights=weights), tmp_path / "ct2", "float32")
    found = measure(model, tmp_path / "ct2", made_sources(model))
    assert found.log_probability > 1e-2


def test_the_folder_by_itself(tmp_path: Path) -> None:
    model = described(like_trained(), tmp_path, TASK)
    write_ctranslate2(model, tmp_path / "ct2", "float32")
    assert {path.name for path in (tmp_path / "ct2").iterdir()} == {
        "config.json",
        "model.bin",
        "sentencepiece.bpe.model",
        "shared_vocabulary.json",
    }
    translator = ctranslate2.Translator(str(tmp_path / "ct2"))
    (found,) = translator.translate_batch(
        [["<s>", "__fr__", "▁", "no such piece", "</s>"]], max_decoding_length=5
    )
    assert set(found.hypotheses[0]) <= set(token_names(model.described(), 60))


def test_made_sources(tmp_path: Path) -> None:
    sources = made_sources(described(like_trained(), tmp_path, TASK), num_sources=30)
    assert {source[1] for source in sources} == set(TAGS.values())
    assert all(source[0] == 0 and source[-1] == 2 for source in sources)
    assert {len(source) for source in sources} == set(range(4, 21))
    assert all(4 <= token <= 24 for source in sources for token in source[2:-1])


def test_sources_from_text(tmp_path: Path) -> None:
    model = described(like_trained(), tmp_path, TASK)
    (tmp_path / "text").write_text("nosa teki\n\nlumo\n")
    ours = model.described().open_tokenizer()
    expected = [[0, 58, *ours.encode("nosa teki"), 2], [0, 58, *ours.encode("lumo"), 2]]
    assert text_sources(model, tmp_path / "text", None) == expected
    assert text_sources(model, tmp_path / "text", "zh-Hant")[1][1] == 59
    with pytest.raises(UserError, match="does not write 'de'"):
        text_sources(model, tmp_path / "text", "de")
    (tmp_path / "text").write_text("\n")
    with pytest.raises(UserError, match="has no text"):
        text_sources(model, tmp_path / "text", None)
    with pytest.raises(UserError, match="cannot be read as text"):
        text_sources(model, tmp_path / "nowhere", None)
