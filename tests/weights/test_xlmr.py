"""XLM-R checkpoints that are not quite XLM-R, and the printed map. The rule's numbers: tests/model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.weights import load_pretrained

Tensors = dict[str, Tensor]

TOKEN_TYPES = "roberta.embeddings.token_type_embeddings.weight"

MAP = """\
weights from {path} (XLM-R in Hugging Face's layout)
  embedding                                 <- roberta.embeddings.word_embeddings
  encoder.positions                         <- roberta.embeddings.position_embeddings
  encoder.embedding_norm                    <- roberta.embeddings.LayerNorm
  encoder.layers.{{0..3}}.attention           <- roberta.encoder.layer.{{0..3}}.attention
  encoder.layers.{{0..3}}.feed_forward        <- roberta.encoder.layer.{{0..3}}.{{intermediate, output}}
  decoder.positions                         <- roberta.embeddings.position_embeddings
  decoder.embedding_norm                    <- roberta.embeddings.LayerNorm
  decoder.blocks.{{0..1}}.self_attention      <- roberta.encoder.layer.{{0, 2}}.attention
  decoder.blocks.{{0..1}}.first_feed_forward  <- roberta.encoder.layer.{{0, 2}}.{{intermediate, output}}
  decoder.blocks.{{0..1}}.cross_attention     <- roberta.encoder.layer.{{1, 3}}.attention
  decoder.blocks.{{0..1}}.second_feed_forward <- roberta.encoder.layer.{{1, 3}}.{{intermediate, output}}
  left out: lm_head.bias: XLM-R's output layer, which DeltaLM has not
  left out: roberta.embeddings.token_type_embeddings.weight: zero
  new: embedding rows 60..159, from N(0, 1/width), seed 0"""


def test_the_printed_map(hugging_face_tensors: Tensors, write_hugging_face: Callable[..., Path]) -> None:
    hugging_face_tensors[TOKEN_TYPES] = torch.zeros(1, 32)
    path = write_hugging_face(hugging_face_tensors)
    assert str(load_pretrained(path).report) == MAP.format(path=path)


def test_a_deep_model_prints_no_longer(
    hugging_face_tensors: Tensors, write_hugging_face: Callable[..., Path]
) -> None:
    for layer in range(4, 12):
        for name in [name for name in hugging_face_tensors if f".layer.{layer % 4}." in name]:
            copied = name.replace(f".layer.{layer % 4}.", f".layer.{layer}.")
            hugging_face_tensors[copied] = hugging_face_tensors[name].clone()
    report = str(load_pretrained(write_hugging_face(hugging_face_tensors, num_hidden_layers=12)).report)
    assert "decoder.blocks.{0..5}.cross_attention" in report
    assert "<- roberta.encoder.layer.{1, 3, .., 11}.attention" in report
    assert len(report.splitlines()) == 14


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("roberta.encoder.layer.3.output.dense.bias"),
            r"lacks roberta\.encoder\.layer\.3\.o",
        ),
        (lambda t: t.pop("roberta.embeddings.LayerNorm.weight"), r"lacks roberta\.embeddings\.LayerNorm\.w"),
        (
            lambda t: t.pop("roberta.embeddings.word_embeddings.weight"),
            r"lacks roberta\.embeddings\.word_e",
        ),
        (
            lambda t: t.update({"classifier.dense.weight": torch.zeros(2, 2)}),
            r"classifier\.dense\.weight has no place in DeltaLM; if it can go",
        ),
        (
            lambda t: t.update({"roberta.encoder.layer.0.attention.self.distance_embedding": torch.zeros(1)}),
            r"distance_embedding has no place",
        ),
        (
            lambda t: t.update({TOKEN_TYPES: torch.ones(2, 32)}),
            r"token_type_embeddings\.weight has shape \[2, 32\], not one row",
        ),
        (
            lambda t: t.update({"roberta.encoder.layer.1.output.LayerNorm.bias": torch.zeros(33)}),
            r"LayerNorm\.bias has shape \[33\], but encoder\.layers\.1\.feed_forward\.norm_bias needs \[32\]",
        ),
    ],
)
def test_anything_unmatched_is_named(
    change: Callable[[Tensors], object],
    message: str,
    hugging_face_tensors: Tensors,
    write_hugging_face: Callable[..., Path],
) -> None:
    change(hugging_face_tensors)
    with pytest.raises(UserError, match=message) as caught:
        load_pretrained(write_hugging_face(hugging_face_tensors))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "xlm-roberta-xl", "a model of type xlm-roberta-xl; give a model folder"),
        ("model_type", None, "a model of type unknown"),
        ("hidden_act", "gelu_new", "hidden_act is 'gelu_new'"),
        ("pad_token_id", 0, "pad_token_id is 0"),
        ("num_attention_heads", None, "lacks num_attention_heads or layer_norm_eps"),
        ("layer_norm_eps", "1e-5", "lacks num_attention_heads or layer_norm_eps"),
        ("hidden_size", 64, "hidden_size is 64, but the tensors have 32"),
        ("num_hidden_layers", 12, "num_hidden_layers is 12, but the tensors have 4"),
        ("num_attention_heads", 5, "width 32 is not a multiple of 5 heads"),
    ],
)
def test_a_config_that_does_not_fit(
    key: str,
    value: Any,
    message: str,
    hugging_face_tensors: Tensors,
    write_hugging_face: Callable[..., Path],
) -> None:
    with pytest.raises(UserError, match=message):
        load_pretrained(write_hugging_face(hugging_face_tensors, **{key: value}))


def test_a_given_configuration(
    hugging_face_tensors: Tensors, write_hugging_face: Callable[..., Path]
) -> None:
    path = write_hugging_face(hugging_face_tensors)
    config = DeltaLMConfig(
        vocabulary_rows=96,
        width=32,
        feed_forward_width=64,
        num_heads=4,
        num_encoder_layers=4,
        num_decoder_blocks=1,
        max_positions=32,
        dropout=0.25,
        mask_id=60,
        first_sentinel_id=64,
        num_sentinels=30,
    )
    loaded = load_pretrained(path, config)
    assert loaded.config == config
    assert loaded.state_dict["embedding.weight"].shape == (96, 32)
    assert load_pretrained(path, config, num_decoder_blocks=2).config.num_decoder_blocks == 2
    for name, value in (
        ("width", 64),
        ("num_heads", 8),
        ("num_encoder_layers", 2),
        ("max_positions", 512),
        ("pre_layer_norm", True),
        ("embedding_layer_norm", False),
    ):
        with pytest.raises(UserError, match=f"the checkpoint has {name} .*, but {value} was asked for"):
            load_pretrained(path, config, **{name: value})


@pytest.mark.parametrize(("mask_id", "first_sentinel_id"), [(40, 60), (59, 58), (61, 62), (16_001, 16_002)])
def test_words_never_become_special_tokens(
    mask_id: int,
    first_sentinel_id: int,
    hugging_face_tensors: Tensors,
    write_hugging_face: Callable[..., Path],
) -> None:
    path = write_hugging_face(hugging_face_tensors)
    for rows in (60, 20_000):
        with pytest.raises(UserError, match=r"token table has 60 rows|do not fit into 60 vocabulary rows"):
            load_pretrained(
                path,
                mask_id=mask_id,
                first_sentinel_id=first_sentinel_id,
                num_sentinels=2,
                vocabulary_rows=rows,
            )


def test_folders_without_weights(
    hugging_face_tensors: Tensors, write_hugging_face: Callable[..., Path]
) -> None:
    folder = write_hugging_face(hugging_face_tensors)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "lacks weight_map"),
        ({"weight_map": {"a": 3}}, "lacks weight_map"),
        ({"weight_map": {"a": "../model.safetensors"}}, "names '../model.safetensors', which is no file of"),
        ({"weight_map": {"a": "part-2.safetensors"}}, r"part-2\.safetensors: cannot be read"),
        ({"weight_map": {"a": "part-1.safetensors"}}, r"does not fit the files beside it \(a\)"),
    ],
)
def test_a_bad_index(
    index: dict[str, Any],
    message: str,
    hugging_face_tensors: Tensors,
    write_hugging_face: Callable[..., Path],
) -> None:
    folder = write_hugging_face(hugging_face_tensors)
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        load_pretrained(folder)


def fairseq_tensors(num_layers: int = 2, width: int = 768) -> Tensors:
    """A thin fairseq XLM-R of a published width, its training options lost."""
    prefix, inner = "encoder.sentence_encoder.", 8
    tensors = {
        "embed_tokens.weight": torch.zeros(20, width),
        "embed_positions.weight": torch.zeros(10, width),
        "layernorm_embedding.weight": torch.zeros(width),
        "layernorm_embedding.bias": torch.zeros(width),
    }
    for layer in range(num_layers):
        tensors |= {
            f"layers.{layer}.self_attn.in_proj_weight": torch.zeros(3 * width, width),
            f"layers.{layer}.self_attn.in_proj_bias": torch.arange(3 * width).float(),
            f"layers.{layer}.self_attn.out_proj.weight": torch.zeros(width, width),
            f"layers.{layer}.self_attn.out_proj.bias": torch.zeros(width),
            f"layers.{layer}.fc1.weight": torch.zeros(inner, width),
            f"layers.{layer}.fc1.bias": torch.zeros(inner),
            f"layers.{layer}.fc2.weight": torch.zeros(width, inner),
            f"layers.{layer}.fc2.bias": torch.zeros(width),
        }
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            tensors |= {f"layers.{layer}.{norm}.{kind}": torch.zeros(width) for kind in ("weight", "bias")}
    return {prefix + name: tensor for name, tensor in tensors.items()}


def test_fairseq_files_without_options_have_the_published_heads(tmp_path: Path) -> None:
    torch.save({"model": fairseq_tensors()}, tmp_path / "model.pt")
    loaded = load_pretrained(tmp_path / "model.pt")
    assert loaded.config.num_heads == 12
    for part, start in (("query", 0), ("key", 768), ("value", 1536)):
        bias = loaded.state_dict[f"decoder.blocks.0.cross_attention.{part}_bias"]
        assert torch.equal(bias, torch.arange(start, start + 768).float())
    report = str(loaded.report)
    assert "each in_proj was split into q_proj, k_proj and v_proj" in report
    assert "attention heads: 12, which the file does not say" in report


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("layers.0.self_attn.in_proj_bias", torch.zeros(7), r"in_proj_bias \[7\] is no stack"),
        (
            "layers.0.self_attn.q_proj.bias",
            torch.zeros(768),
            r"0\.self_attn\.in_proj_bias has no place",
        ),
        ("layer_norm.weight", torch.zeros(768), r"sentence_encoder\.layer_norm\.weight has no place"),
    ],
)
def test_unusual_fairseq_files(name: str, tensor: Tensor, message: str, tmp_path: Path) -> None:
    tensors = fairseq_tensors()
    tensors[f"encoder.sentence_encoder.{name}"] = tensor
    if "q_proj" in name:
        tensors |= {
            f"encoder.sentence_encoder.{name}".replace("q_proj", p): tensor for p in ("k_proj", "v_proj")
        }
    torch.save({"model": tensors}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path / "model.pt")
