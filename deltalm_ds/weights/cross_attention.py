"""What a standard decoder's cross-attention starts from; an encoder has none to give."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deltalm_ds.data.permutation import stream_key
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.randomness import Site
from deltalm_ds.model.sublayers import Attention

CrossAttentionStart = Literal["random", "copied"]
"""random: as in a new model, which is XLM's way; copied: as the self-attention of the same layer."""


def draw_cross_attention(config: DeltaLMConfig, seed: int) -> dict[str, Tensor]:
    """Every parameter of the decoder's cross-attention, as in a new model of shape `config`.

    Each layer is drawn from `seed` and its own number.
    """
    drawn: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        for layer in range(config.num_decoder_layers):
            torch.default_generator.manual_seed(stream_key("cross-attention", layer, seed))
            sublayer = Attention(config, layer, Site.CROSS_ATTENTION)
            drawn |= {
                f"decoder.blocks.{layer}.cross_attention.{name}": tensor
                for name, tensor in sublayer.state_dict().items()
            }
    return drawn
