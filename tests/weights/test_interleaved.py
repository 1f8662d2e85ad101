"""Released and fine-tuned DeltaLM files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from released_layout import released_names
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.weights import load_pretrained

Tensors = dict[str, Tensor]

ARGS = argparse.Namespace(
    encoder_attention_heads=4, decoder_attention_heads=4, activation_fn="gelu", no_scale_embedding=True
)


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def save(path: Path, **state: Any) -> Path:
    torch.save(state, path / "model.pt")
    return path / "model.pt"


def test_released_file_tensor_by_tensor(released: Tensors, released_path: Path) -> None:
    loaded = load_pretrained(released_path, num_heads=4)
    assert_same(loaded.state_dict, {ours: released[theirs] for ours, theirs in released_names(4, 2).items()})
    assert (loaded.config.width, loaded.config.max_positions) == (64, 64)
    assert (loaded.config.num_encoder_layers, loaded.config.num_decoder_blocks) == (4, 2)
    assert loaded.config.embedding_layer_norm
    assert not loaded.config.pre_layer_norm
    assert "attention heads: 4, which the file does not say" in str(loaded.report)


def test_released_file_computes_the_published_numbers(released_path: Path) -> None:
    loaded = load_pretrained(released_path, num_heads=4)
    model = DeltaLM(loaded.config)
    model.load_state_dict(loaded.state_dict)
    with np.load(released_path.parent / "forward.npz") as file:
        source, decoder_input = (torch.from_numpy(file[n]) for n in ("src_tokens", "prev_output_tokens"))
        encoder_output, logits = (torch.from_numpy(file[n]) for n in ("encoder_out", "logits"))
    with torch.no_grad():
        encoded = model.encode(PackedTokens.from_padded(source, 1))
        torch.testing.assert_close(encoded, encoder_output[source != 1], rtol=0, atol=2e-5)
        found = model.forward_padded(source, decoder_input)
    real = decoder_input != 1
    torch.testing.assert_close(found[real], logits[real], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "options",
    [{"args": ARGS}, {"args": None, "cfg": {"model": ARGS}}, {"cfg": {"model": vars(ARGS)}}],
    ids=["args", "cfg with namespace", "plain cfg"],
)
def test_fairseq_file_gives_the_released_tensors(
    options: dict[str, Any], fairseq_deltalm: Tensors, released_path: Path, tmp_path: Path
) -> None:
    path = save(tmp_path, model=fairseq_deltalm, optimizer_history=[{"num_updates": 3}], **options)
    loaded = load_pretrained(path)
    assert loaded.config.num_heads == 4
    expected = load_pretrained(released_path, num_heads=4)
    assert loaded.config == expected.config
    assert_same(loaded.state_dict, expected.state_dict)
    report = str(loaded.report)
    assert "decoder.blocks.{0..1}.first_feed_forward" in report
    assert "<- decoder.layers.{0..1}.{fc3, fc4, ffn_layer_norm}" in report
    assert "encoder.version, decoder.embed_positions._float_tensor: fairseq's bookkeeping" in report
    assert "does not say" not in report


def test_half_precision_files_become_fp32(fairseq_deltalm: Tensors, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in fairseq_deltalm.items()}
    loaded = load_pretrained(save(tmp_path, model=half, args=ARGS))
    assert {tensor.dtype for tensor in loaded.state_dict.values()} == {torch.float32}
    assert torch.equal(
        loaded.state_dict["embedding.weight"], fairseq_deltalm["encoder.embed_tokens.weight"].half().float()
    )


def test_pre_layer_norm_and_no_embedding_layer_norm(fairseq_deltalm: Tensors, tmp_path: Path) -> None:
    tensors = {name: t for name, t in fairseq_deltalm.items() if "layernorm_embedding" not in name}
    for side in ("encoder", "decoder"):
        tensors[f"{side}.layer_norm.weight"] = torch.randn(64)
        tensors[f"{side}.layer_norm.bias"] = torch.randn(64)
    loaded = load_pretrained(save(tmp_path, model=tensors, args=ARGS))
    assert loaded.config.pre_layer_norm
    assert not loaded.config.embedding_layer_norm
    assert torch.equal(loaded.state_dict["decoder.final_norm.bias"], tensors["decoder.layer_norm.bias"])


def test_heads_of_an_unpublished_width_must_be_given(
    fairseq_deltalm: Tensors, released_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"does not say how many attention heads.*width 64.*give num_heads"):
        load_pretrained(released_path)
    path = save(tmp_path, model=fairseq_deltalm, args=ARGS)
    with pytest.raises(UserError, match="num_heads 4, but 8 was asked for"):
        load_pretrained(path, num_heads=8)
    uneven = argparse.Namespace(**{**vars(ARGS), "decoder_attention_heads": 8})
    with pytest.raises(UserError, match=r"encoder and decoder have \[4, 8\] heads"):
        load_pretrained(save(tmp_path, model=fairseq_deltalm, args=uneven))


@pytest.mark.parametrize(("option", "value"), [("activation_fn", "relu"), ("no_scale_embedding", False)])
def test_models_that_compute_otherwise_are_refused(
    option: str, value: Any, fairseq_deltalm: Tensors, tmp_path: Path
) -> None:
    args = argparse.Namespace(**{**vars(ARGS), option: value})
    with pytest.raises(UserError, match=f"was trained with {option} {value!r}"):
        load_pretrained(save(tmp_path, model=fairseq_deltalm, args=args))


@pytest.mark.parametrize("name", ["decoder.output_projection.weight", "decoder.embed_tokens.weight"])
def test_untied_tables_are_refused(name: str, fairseq_deltalm: Tensors, tmp_path: Path) -> None:
    fairseq_deltalm[name] = fairseq_deltalm[name] + 1e-3
    with pytest.raises(UserError, match=rf"{name} differs from encoder\.embed_tokens\.weight"):
        load_pretrained(save(tmp_path, model=fairseq_deltalm, args=ARGS))


def test_untied_released_tables_are_refused(released: Tensors, tmp_path: Path) -> None:
    released["tgt_embedding.embed_tokens.weight"] = torch.zeros(120, 64)
    with pytest.raises(UserError, match=r"tgt_embedding\.embed_tokens\.weight differs from src_embedding"):
        load_pretrained(save(tmp_path, weights=released), num_heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.layers.1.ffn.fc2.bias"), r"lacks encoder\.layers\.1\.ffn\.fc2\.bias;"),
        (lambda t: t.pop("src_embedding.embed_tokens.weight"), r"lacks src_embedding\.embed_tokens\.weight;"),
        (
            lambda t: [t.pop(name) for name in list(t) if "decoder.layers.0" in name],
            r"lacks decoder\.layers\.0\.\S+, \S+, \S+ and 29 more",
        ),
        (lambda t: t.update(adapter=torch.zeros(1)), r"adapter has no place in DeltaLM"),
        (
            lambda t: t.update({"encoder.layers.1000000000.x": torch.zeros(1)}),
            r"names layer 1000000000 of encoder\.layers and holds only \d+ tensors",
        ),
        (
            lambda t: t.update({f"decoder.layers.{'9' * 5000}.x": torch.zeros(1)}),
            r"names layer 99999999999999999999 of decoder\.layers and holds only \d+ tensors",
        ),
        (
            lambda t: t.update({"encoder.layers.0.ffn_1.fc1.weight": torch.zeros(1)}),
            r"encoder\.layers\.0\.ffn_1\.fc1\.weight has no place",
        ),
        (
            lambda t: t.update({"encoder.layers.3.ffn.fc1.weight": torch.zeros(64, 128)}),
            r"has shape \[64, 128\], but encoder\.layers\.3\.feed_forward\.fc1_weight needs \[128, 64\]",
        ),
        (
            lambda t: t.update({"tgt_embedding.embed_positions.weight": torch.zeros(130, 64)}),
            r"embed_positions\.weight has shape \[130, 64\], but decoder\.positions\.weight needs \[66, 64\]",
        ),
        (
            lambda t: t.update({"src_embedding.embed_tokens.weight": torch.zeros(64)}),
            r"embed_tokens\.weight has shape \[64\], not rows and columns",
        ),
        (
            lambda t: t.update({"encoder.layers.0.ffn.fc1.bias": torch.zeros(128, dtype=torch.int64)}),
            r"fc1\.bias holds torch\.int64, not floating-point",
        ),
    ],
)
def test_anything_unmatched_is_named(change: Any, message: str, released: Tensors, tmp_path: Path) -> None:
    change(released)
    with pytest.raises(UserError, match=message) as caught:
        load_pretrained(save(tmp_path, weights=released), num_heads=4)
    assert "\n" not in str(caught.value)


def test_sizes_that_contradict_the_file(released_path: Path) -> None:
    for name, value in (
        ("width", 128),
        ("max_positions", 512),
        ("num_decoder_blocks", 1),
        ("embedding_layer_norm", False),
        ("pre_layer_norm", True),
        ("layer_norm_epsilon", 1e-6),
    ):
        with pytest.raises(UserError, match=f"has {name} .*, but {value} was asked for; leave {name}"):
            load_pretrained(released_path, num_heads=4, **{name: value})


def test_rows_of_another_tokenizer_are_refused(released_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 120 rows; a model of 16104 rows with <mask> at 16001"):
        load_pretrained(
            released_path, num_heads=4, vocabulary_rows=16_104, mask_id=16_001, first_sentinel_id=16_002
        )


@pytest.mark.parametrize("has_mask", [False, True])
def test_a_fine_tuned_table_without_sentinels_grows_when_asked(has_mask: bool, released_path: Path) -> None:
    """Fine-tuning cuts the table to the dictionary; pre-training needs the special rows again."""
    mask_id = 119 if has_mask else 120
    loaded = load_pretrained(
        released_path,
        num_heads=4,
        mask_id=mask_id,
        first_sentinel_id=mask_id + 1,
        num_sentinels=20,
        vocabulary_rows=144,
    )
    old = load_pretrained(released_path, num_heads=4)
    assert old.config.num_sentinels == 0
    assert "no sentinels" in str(old.report)
    assert torch.equal(loaded.state_dict["embedding.weight"][:120], old.state_dict["embedding.weight"])
    assert loaded.state_dict["embedding.weight"][120:].std().item() == pytest.approx(0.125, rel=0.1)
    assert "new: embedding rows 120..143, from N(0, 1/width), seed 0" in str(loaded.report)


def test_no_words_become_sentinels(released_path: Path) -> None:
    with pytest.raises(UserError, match="sentinels from 100 can't start from it"):
        load_pretrained(
            released_path,
            num_heads=4,
            mask_id=120,
            first_sentinel_id=100,
            num_sentinels=20,
            vocabulary_rows=144,
        )


def test_the_released_size_has_its_known_sentinels(released: Tensors, tmp_path: Path) -> None:
    table = torch.zeros(250_104, 64)
    released["src_embedding.embed_tokens.weight"] = released["tgt_embedding.embed_tokens.weight"] = table
    path = save(tmp_path, weights=released)
    config = load_pretrained(path, num_heads=4).config
    assert (config.mask_id, config.first_sentinel_id, config.num_sentinels) == (250_001, 250_002, 100)
    assert load_pretrained(path, num_heads=4, first_sentinel_id=250_004).config.first_sentinel_id == 250_004


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"best": 1.0}, "neither 'model' nor 'weights'"),
        ({"model": {"encoder.layers.0.fc1.weight": torch.zeros(2, 2)}}, "neither XLM-R nor DeltaLM"),
        ({"weights": 3}, "expected tensors by name, found int"),
        ([1, 2], "holds a list, no checkpoint"),
    ],
)
def test_other_torch_files(state: Any, message: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path / "model.pt")
