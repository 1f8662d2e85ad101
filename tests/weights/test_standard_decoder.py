"""Standard decoders: started from XLM-R, and saved as our own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.weights import load_pretrained, parameter_shapes, save_own

Tensors = dict[str, Tensor]
Write = Callable[..., Path]

ATTENTION = {
    "query": "attention.self.query.{}",
    "key": "attention.self.key.{}",
    "value": "attention.self.value.{}",
    "output": "attention.output.dense.{}",
    "norm": "attention.output.LayerNorm.{}",
}
FEED_FORWARD = {
    "fc1": "intermediate.dense.{}",
    "fc2": "output.dense.{}",
    "norm": "output.LayerNorm.{}",
}


def check_sublayer(state: Tensors, sublayer: str, theirs: Tensors, layer: int, names: dict[str, str]) -> None:
    """Decoder layer `layer`'s `sublayer` is that of XLM-R's layer of the same number."""
    for operation, name in names.items():
        for kind in ("weight", "bias"):
            found = state[f"decoder.blocks.{layer}.{sublayer}.{operation}_{kind}"]
            assert torch.equal(found, theirs[f"roberta.encoder.layer.{layer}.{name.format(kind)}"])


@pytest.mark.parametrize("start", [None, "random", "copied"])
def test_layer_k_starts_from_layer_k(
    start: str | None, hugging_face_tensors: Tensors, write_hugging_face: Write
) -> None:
    path = write_hugging_face(hugging_face_tensors)
    loaded = load_pretrained(path, decoder="standard", cross_attention_start=start)
    assert (loaded.config.num_decoder_blocks, loaded.config.num_decoder_layers) == (2, 3)
    for layer in range(3):
        check_sublayer(loaded.state_dict, "self_attention", hugging_face_tensors, layer, ATTENTION)
        check_sublayer(loaded.state_dict, "feed_forward", hugging_face_tensors, layer, FEED_FORWARD)
        if start == "copied":
            check_sublayer(loaded.state_dict, "cross_attention", hugging_face_tensors, layer, ATTENTION)
    positions = hugging_face_tensors["roberta.embeddings.position_embeddings.weight"]
    assert torch.equal(loaded.state_dict["decoder.positions.weight"], positions)
    model = DeltaLM(loaded.config)
    model.load_state_dict(loaded.state_dict)
    report = str(loaded.report)
    copied = "decoder.blocks.{0..2}.cross_attention <- roberta.encoder.layer.{0..2}.attention"
    assert (copied in report) == (start == "copied")
    drawn = "new: cross-attention of every decoder layer, as in a new model, seed 0"
    assert (drawn in report) == (start != "copied")
    assert "left out of the decoder: layers 3" in report


def test_random_cross_attention_is_that_of_a_new_model(
    hugging_face_tensors: Tensors, write_hugging_face: Write
) -> None:
    path = write_hugging_face(hugging_face_tensors)

    def drawn(seed: int) -> Tensors:
        state = load_pretrained(path, decoder="standard", seed=seed).state_dict
        return {name: tensor for name, tensor in state.items() if "cross_attention" in name}

    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = drawn(3), drawn(3), drawn(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        constant = name.endswith(("norm_weight", "norm_bias", "output_bias"))
        assert torch.equal(tensor, other[name]) == constant
        assert torch.equal(tensor, first[name.replace("blocks.0", "blocks.1")]) == (
            constant or "blocks.0" not in name
        )
    width = 32
    assert (first["decoder.blocks.1.cross_attention.norm_weight"] == 1).all()
    query = first["decoder.blocks.1.cross_attention.query_weight"]
    assert query.std().item() == pytest.approx((1 / (2 * width)) ** 0.5, rel=0.1)
    output = first["decoder.blocks.1.cross_attention.output_weight"]
    assert output.std().item() == pytest.approx((1 / width) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cross_attention_start": "copied"}, "an interleaved decoder's cross-attention starts from"),
        ({"decoder": "standard", "cross_attention_start": "zero"}, "must be random or copied, not 'zero'"),
        ({"decoder": "both"}, "decoder must be interleaved or standard, not 'both'"),
        (
            {"decoder": "standard", "num_decoder_blocks": 4},
            "would need 6 XLM-R layers, and there are 4; ask for at most 2 decoder blocks",
        ),
        ({"decoder": "standard", "num_decoder_blocks": 1}, "num_decoder_blocks is 1; take an even number"),
    ],
)
def test_what_makes_no_sense_is_refused(
    asked: dict, message: str, hugging_face_tensors: Tensors, write_hugging_face: Write
) -> None:
    with pytest.raises(UserError, match=message):
        load_pretrained(write_hugging_face(hugging_face_tensors), **asked)


def test_released_models_are_interleaved(released_path: Path) -> None:
    with pytest.raises(UserError, match="has decoder interleaved, but standard was asked for"):
        load_pretrained(released_path, num_heads=4, decoder="standard", num_decoder_blocks=2)
    with pytest.raises(UserError, match=r"has a decoder's cross-attention \(DeltaLM as released\)"):
        load_pretrained(released_path, num_heads=4, cross_attention_start="random")


@pytest.fixture
def standard(config: DeltaLMConfig) -> DeltaLM:
    torch.manual_seed(3)
    return DeltaLM(dataclasses.replace(config, decoder="standard", num_decoder_blocks=2))


@pytest.mark.parametrize("preset", ["tiny", "base", "large"])
@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_parameter_shapes_are_the_models(preset: str, pre_layer_norm: bool) -> None:
    config = DeltaLMConfig.preset(preset, pre_layer_norm=pre_layer_norm, decoder="standard")
    with torch.device("meta"):
        model = DeltaLM(config)
    found = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    assert found == parameter_shapes(config)


def test_saved_and_loaded_models_are_equal(standard: DeltaLM, tmp_path: Path) -> None:
    standard.save_pretrained(tmp_path)
    again = DeltaLM.from_pretrained(tmp_path)
    assert again.config == standard.config
    for name, tensor in standard.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with pytest.raises(UserError, match="has decoder standard, but interleaved was asked for"):
        DeltaLM.from_pretrained(tmp_path, decoder="interleaved")
    with pytest.raises(UserError, match="leave the start of cross-attention out"):
        DeltaLM.from_pretrained(tmp_path, cross_attention_start="copied")


def test_folders_from_before_there_was_a_choice_are_interleaved(model: DeltaLM, tmp_path: Path) -> None:
    save_own(model, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["model"]["decoder"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"config": json.dumps(content["model"])})
    again = DeltaLM.from_pretrained(tmp_path)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
