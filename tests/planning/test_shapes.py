"""A model's shape against the model itself, and against the formula of docs/planning.md."""

from __future__ import annotations

import pytest
import torch

from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.model.config import PRESETS
from deltalm_ds.planning.shapes import shape_of


def counted_by_formula(config: DeltaLMConfig) -> int:
    width, inner = config.width, config.feed_forward_width
    norm, attention = 2 * width, 4 * width**2 + 4 * width
    feed_forward = 2 * width * inner + inner + width
    encoder = config.num_encoder_layers * (attention + feed_forward + 2 * norm)
    decoder = config.num_decoder_blocks * (2 * attention + 2 * feed_forward + 4 * norm)
    outside = config.embedding_layer_norm + config.pre_layer_norm
    return (
        config.vocabulary_rows * width
        + 2 * (config.position_rows * width + outside * norm)
        + encoder
        + decoder
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("changes", [{}, {"pre_layer_norm": True}, {"embedding_layer_norm": False}])
def test_parameters_are_counted(preset, changes):
    config = DeltaLMConfig.preset(preset, **changes)
    shape = shape_of(config)
    assert shape.num_parameters == counted_by_formula(config)
    assert (
        sum(parameter.size for unit in shape.units for parameter in unit.parameters) == shape.num_parameters
    )


def test_parameters_and_groups_are_in_the_model_s_order():
    config = DeltaLMConfig.preset("tiny")
    with torch.device("meta"):
        parameters = list(DeltaLM(config).parameters())
    shape = shape_of(config)
    assert [parameter.size for parameter in shape.parameters] == [p.numel() for p in parameters]
    matrices, vectors = shape.optimizer_groups
    assert [parameter.size for parameter in matrices] == [p.numel() for p in parameters if p.dim() > 1]
    assert [parameter.size for parameter in vectors] == [p.numel() for p in parameters if p.dim() == 1]


@pytest.mark.parametrize("changes", [{}, {"pre_layer_norm": True}, {"decoder": "standard"}])
def test_units_are_in_the_order_of_the_forward_pass(changes):
    config = DeltaLMConfig.preset(
        "tiny", vocabulary_rows=24, mask_id=0, first_sentinel_id=0, num_sentinels=0, **changes
    )
    model, ran = DeltaLM(config), []
    own = [module for module in model.modules() if list(module.parameters(recurse=False))]
    for module in own:
        sizes = [parameter.numel() for parameter in module.parameters(recurse=False)]
        module.register_forward_hook(lambda *_, sizes=sizes: ran.append(sizes))
    tokens = torch.tensor([[4, 5, 6]])
    model.forward_padded(tokens, tokens)
    units = [[parameter.size for parameter in unit.parameters] for unit in shape_of(config).units]
    # The table is looked up for each side here, and is the output projection.
    assert [sizes for sizes in ran if sizes != units[0]] == units[1:]
