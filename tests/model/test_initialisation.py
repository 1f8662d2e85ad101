"""The rule for starting from XLM-R, checked by numbers against transformers' own XLM-R."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.weights import load_pretrained

transformers = pytest.importorskip("transformers")

PAD = 1
ROWS, WIDTH, HEADS = 60, 32, 4


@dataclass(frozen=True)
class Xlmr:
    """A random XLM-R and what it computes."""

    model: transformers.XLMRobertaForMaskedLM
    tokens: Tensor
    """[batch, length], padded on the right."""
    hidden: list[Tensor]
    """After the embeddings and after every layer, [tokens, width] each, real tokens only."""

    @property
    def packed(self) -> PackedTokens:
        return PackedTokens.from_padded(self.tokens, PAD)


def build_xlmr(num_layers: int = 4, token_type_scale: float = 0.0) -> Xlmr:
    torch.manual_seed(5)
    config = transformers.XLMRobertaConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        num_hidden_layers=num_layers,
        num_attention_heads=HEADS,
        intermediate_size=64,
        max_position_embeddings=34,
        type_vocab_size=1,
        pad_token_id=PAD,
        layer_norm_eps=1e-5,
    )
    model = transformers.XLMRobertaForMaskedLM(config).eval()
    with torch.no_grad():
        # The library's own start has zero biases and unit LayerNorms, which would hide exchanged ones.
        for name, parameter in model.named_parameters():
            scale = token_type_scale if "token_type" in name else 0.2
            parameter.copy_(torch.randn_like(parameter) * scale + float("LayerNorm.weight" in name))
    tokens = torch.full((3, 20), PAD)
    for row, length in enumerate((20, 7, 13)):
        tokens[row, :length] = torch.randint(4, ROWS, (length,))
    with torch.no_grad():
        output = model.roberta(tokens, attention_mask=tokens != PAD, output_hidden_states=True)
    return Xlmr(model, tokens, [hidden[tokens != PAD] for hidden in output.hidden_states])


@pytest.fixture(scope="module")
def xlmr() -> Xlmr:
    return build_xlmr()


def check_encoder(model: DeltaLM, xlmr: Xlmr) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model.encode(xlmr.packed), xlmr.hidden[-1], rtol=1e-5, atol=1e-5)


def check_decoder(model: DeltaLM, xlmr: Xlmr) -> None:
    """Block k, reading its own state without a causal mask, is encoder layers 2k and 2k + 1."""
    packed = xlmr.packed
    with torch.no_grad():
        embedded = model.decoder.embed(model.embedding.weight[packed.tokens], packed, None)
        torch.testing.assert_close(embedded, xlmr.hidden[0], rtol=1e-5, atol=1e-5)
        for index, block in enumerate(model.decoder.blocks):
            hidden = block.self_attention(xlmr.hidden[2 * index], None, packed, packed, False, None)
            hidden = block.first_feed_forward(hidden, None)
            torch.testing.assert_close(hidden, xlmr.hidden[2 * index + 1], rtol=1e-5, atol=1e-5)
            hidden = block.cross_attention(hidden, hidden, packed, packed, False, None)
            hidden = block.second_feed_forward(hidden, None)
            torch.testing.assert_close(hidden, xlmr.hidden[2 * index + 2], rtol=1e-5, atol=1e-5)


def fairseq_names(state: dict[str, Tensor], prefix: str, stacked: bool) -> dict[str, Tensor]:
    """transformers' tensors under the names of a fairseq file."""
    renames = [
        (r"roberta\.embeddings\.word_embeddings", f"{prefix}embed_tokens"),
        (r"roberta\.embeddings\.position_embeddings", f"{prefix}embed_positions"),
        (r"roberta\.embeddings\.LayerNorm", f"{prefix}emb_layer_norm"),
        (r"roberta\.encoder\.layer", f"{prefix}layers"),
        (r"attention\.self\.query", "self_attn.q_proj"),
        (r"attention\.self\.key", "self_attn.k_proj"),
        (r"attention\.self\.value", "self_attn.v_proj"),
        (r"attention\.output\.dense", "self_attn.out_proj"),
        (r"attention\.output\.LayerNorm", "self_attn_layer_norm"),
        (r"intermediate\.dense", "fc1"),
        (r"output\.dense", "fc2"),
        (r"output\.LayerNorm", "final_layer_norm"),
        (r"^lm_head", f"{prefix.split('.')[0]}.lm_head"),
    ]
    renamed = {}
    for name, tensor in state.items():
        if "token_type" in name:
            continue
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor.clone()
    if stacked:
        for name in [name for name in renamed if ".q_proj." in name]:
            parts = [renamed.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
            renamed[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return renamed


def write_layout(xlmr: Xlmr, layout: str, folder: Path) -> Path:
    """`xlmr` on disk in the named layout."""
    model, state = xlmr.model, dict(xlmr.model.state_dict())
    if layout == "safetensors":
        model.save_pretrained(folder)
    elif layout == "without prefix":
        model.roberta.save_pretrained(folder)
    elif layout == "sharded":
        model.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
    elif layout in ("bin", "old bin"):
        model.config.save_pretrained(folder)
        state["roberta.embeddings.position_ids"] = torch.arange(34)[None]
        state["roberta.pooler.dense.weight"] = torch.randn(WIDTH, WIDTH)
        archive = layout == "bin"
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=archive)
    elif layout == "sharded bin":
        model.config.save_pretrained(folder)
        places = {name: f"pytorch_model-{len(name) % 2}.bin" for name in state}
        for place in set(places.values()):
            torch.save({name: state[name] for name in state if places[name] == place}, folder / place)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    else:
        side, _, form = layout.partition(" ")
        names = fairseq_names(state, f"{side}.sentence_encoder.", stacked=form == "stacked")
        names[f"{side}.sentence_encoder.version"] = torch.tensor([1.0])
        args = argparse.Namespace(encoder_attention_heads=HEADS, arch="roberta", activation_fn="gelu")
        torch.save({"args": args, "model": names}, folder / "model.pt")
        return folder / "model.pt"
    return folder


@pytest.mark.parametrize(
    "layout",
    [
        "safetensors",
        "without prefix",
        "sharded",
        "bin",
        "old bin",
        "sharded bin",
        "decoder stacked",
        "decoder separate",
        "encoder separate",
    ],
)
def test_every_layout_computes_what_xlmr_computes(xlmr: Xlmr, layout: str, tmp_path: Path) -> None:
    path = write_layout(xlmr, layout, tmp_path)
    model = DeltaLM.from_pretrained(path)
    assert model.config.num_decoder_blocks == 2
    assert model.config.num_heads == HEADS
    assert model.config.max_positions == 32
    check_encoder(model, xlmr)
    check_decoder(model, xlmr)


def test_token_type_row_that_is_not_zero(tmp_path: Path) -> None:
    xlmr = build_xlmr(token_type_scale=0.5)
    xlmr.model.save_pretrained(tmp_path)
    model = DeltaLM.from_pretrained(tmp_path)
    check_encoder(model, xlmr)
    check_decoder(model, xlmr)
    report = str(load_pretrained(tmp_path).report)
    assert "token_type_embeddings.weight: added to every position row" in report


def test_odd_number_of_layers_leaves_the_last_out_of_the_decoder(tmp_path: Path) -> None:
    xlmr = build_xlmr(num_layers=5)
    xlmr.model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.config.num_decoder_blocks == 2
    assert "left out of the decoder: layers 4" in str(loaded.report)
    model = DeltaLM.from_pretrained(tmp_path)
    check_encoder(model, xlmr)
    check_decoder(model, xlmr)


def test_a_shallower_decoder_takes_the_first_layers(xlmr: Xlmr, tmp_path: Path) -> None:
    xlmr.model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path, num_decoder_blocks=1)
    assert "left out of the decoder: layers 2, 3" in str(loaded.report)
    model = DeltaLM(loaded.config)
    model.load_state_dict(loaded.state_dict)
    assert len(model.decoder.blocks) == 1
    check_decoder(model, xlmr)
    with pytest.raises(UserError, match="at most 2 decoder blocks"):
        load_pretrained(tmp_path, num_decoder_blocks=3)


def test_sentinel_rows_are_new_and_all_others_are_xlmrs(xlmr: Xlmr, tmp_path: Path) -> None:
    xlmr.model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path, seed=3)
    config, table = loaded.config, loaded.state_dict["embedding.weight"]
    assert (config.mask_id, config.first_sentinel_id, config.num_sentinels) == (ROWS - 1, ROWS, 100)
    assert config.vocabulary_rows == len(table) == 160
    assert torch.equal(table[:ROWS], xlmr.model.roberta.embeddings.word_embeddings.weight)
    new = table[ROWS:]
    assert new.std().item() == pytest.approx(WIDTH**-0.5, rel=0.05)
    assert abs(new.mean().item()) < 0.02
    assert torch.equal(new, load_pretrained(tmp_path, seed=3).state_dict["embedding.weight"][ROWS:])
    assert not torch.equal(new, load_pretrained(tmp_path, seed=4).state_dict["embedding.weight"][ROWS:])


def test_training_one_side_does_not_change_the_other(xlmr: Xlmr, tmp_path: Path) -> None:
    xlmr.model.save_pretrained(tmp_path)
    model = DeltaLM.from_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
    check_encoder(model, xlmr)
