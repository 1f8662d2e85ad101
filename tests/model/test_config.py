"""Presets as published, and a configuration that survives JSON and refuses what it does not know."""

import json

import pytest
import torch

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.model.config import PRESETS


@pytest.mark.parametrize(
    ("preset", "overrides", "parameters"),
    [
        ("base", {}, 362_981_376),
        ("large", {}, 861_777_920),
        ("large", {"embedding_layer_norm": True}, 861_777_920 + 2 * 2 * 1024),
        ("xl", {}, 2_931_523_584),
        ("xxl", {}, 10_694_885_376),
        ("base", {"pre_layer_norm": True}, 362_981_376 + 2 * 2 * 768),
        # Three standard layers have a LayerNorm and two attentions more than two blocks, a feed-forward less.
        ("base", {"decoder": "standard"}, 362_981_376 + 3 * (2 + 2 * 4 - 5) * 768),
        ("large", {"decoder": "standard"}, 861_777_920 + 6 * (2 + 2 * 4 - 5) * 1024),
    ],
)
def test_parameter_counts(preset, overrides, parameters):
    with torch.device("meta"):
        model = DeltaLM(DeltaLMConfig.preset(preset, **overrides))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_survive_json(preset):
    decoder = "interleaved" if preset == "small" else "standard"
    config = DeltaLMConfig.preset(preset, dropout=0, num_sentinels=7, decoder=decoder)
    assert DeltaLMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_preset_keeps_64_features_a_head():
    assert {DeltaLMConfig.preset(preset).head_width for preset in PRESETS} == {64}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"extra": 1}, "extra"),
        ({"width": "768"}, "width"),
        ({"width": 768.0}, "width"),
        ({"num_heads": True}, "num_heads"),
        ({"embedding_layer_norm": 1}, "embedding_layer_norm"),
        ({"dropout": "0.1"}, "dropout"),
        ({"decoder": 1}, "decoder must be of type str"),
        ({"decoder": "shared"}, "decoder must be interleaved or standard, not 'shared'"),
    ],
)
def test_from_dict_refuses(change, word):
    with pytest.raises(UserError, match=word):
        DeltaLMConfig.from_dict({**DeltaLMConfig().to_dict(), **change})


def test_from_dict_wants_every_field():
    values = DeltaLMConfig().to_dict()
    del values["num_heads"]
    with pytest.raises(UserError, match="num_heads"):
        DeltaLMConfig.from_dict(values)


def test_configurations_without_a_decoder_are_of_an_interleaved_one():
    values = DeltaLMConfig(dropout=0.25).to_dict()
    del values["decoder"]
    assert DeltaLMConfig.from_dict(values) == DeltaLMConfig(dropout=0.25)
    assert "decoder" not in values


@pytest.mark.parametrize(
    ("decoder", "num_blocks", "num_layers"),
    [("interleaved", 3, 3), ("standard", 6, 9), ("standard", 2, 3), ("standard", 0, 0)],
)
def test_three_standard_layers_for_two_blocks(decoder, num_blocks, num_layers):
    config = DeltaLMConfig(decoder=decoder, num_decoder_blocks=num_blocks)
    assert config.num_decoder_layers == num_layers


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"width": 0}, "width"),
        ({"num_encoder_layers": -1}, "num_encoder_layers"),
        ({"num_heads": 7}, "heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_dropout": -0.1}, "attention_dropout"),
        ({"vocabulary_rows": 250_100}, "sentinels"),
        ({"decoder": "Standard"}, "decoder must be interleaved or standard"),
        ({"decoder": "standard", "num_decoder_blocks": 3}, "num_decoder_blocks is 3; take an even number"),
    ],
)
def test_values_that_cannot_be(overrides, word):
    with pytest.raises(UserError, match=word):
        DeltaLMConfig(**overrides)


def test_unknown_preset_names_the_known():
    with pytest.raises(UserError, match="tiny, mini, small, base, large"):
        DeltaLMConfig.preset("huge")
