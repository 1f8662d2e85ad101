"""Attention and feed-forward sub-layers, each with its residual connection and LayerNorm.

A sub-layer owns all of its parameters itself, so that ZeRO-3, which gathers a module's own parameters for
its forward, needs one gather a sub-layer and no special cases.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deltalm_ds import ops
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import ACTIVATION_OFFSET, PROBABILITY_OFFSET, BatchDropout, Site


class Sublayer(nn.Module):
    """The residual frame: post-LN LN(x + f(x)), or pre-LN x + f(LN(x))."""

    def __init__(self, config: DeltaLMConfig, layer: int, site: Site) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.site = site
        self.norm_weight = nn.Parameter(torch.ones(config.width))
        self.norm_bias = nn.Parameter(torch.zeros(config.width))

    def open(self, hidden: Tensor) -> Tensor:
        """What the sub-layer's function reads: hidden, normalised first in a pre-LN model."""
        if not self.config.pre_layer_norm:
            return hidden
        return ops.layer_norm(hidden, self.norm_weight, self.norm_bias, self.config.layer_norm_epsilon)

    def close(self, x: Tensor, bias: Tensor, residual: Tensor, dropout: BatchDropout | None) -> Tensor:
        """Bias, dropout, residual and, in a post-LN model, LayerNorm; x, residual [tokens, width]."""
        here = None if dropout is None else dropout.at(self.config.dropout, self.layer, self.site)
        if self.config.pre_layer_norm:
            return ops.dropout_add(x, bias, residual, here)
        return ops.dropout_add_layer_norm(
            x, bias, residual, self.norm_weight, self.norm_bias, here, self.config.layer_norm_epsilon
        )


class Attention(Sublayer):
    """Multi-head attention, self or cross; weights are [out, in]."""

    def __init__(self, config: DeltaLMConfig, layer: int, site: Site) -> None:
        super().__init__(config, layer, site)
        self.query_weight, self.query_bias = _input_projection(config.width)
        self.key_weight, self.key_bias = _input_projection(config.width)
        self.value_weight, self.value_bias = _input_projection(config.width)
        self.output_weight = nn.Parameter(torch.empty(config.width, config.width))
        self.output_bias = nn.Parameter(torch.zeros(config.width))
        nn.init.xavier_uniform_(self.output_weight)

    def forward(
        self,
        hidden: Tensor,
        memory: Tensor | None,
        queries: PackedTokens,
        keys: PackedTokens,
        causal: bool,
        dropout: BatchDropout | None,
    ) -> Tensor:
        """hidden [tokens_q, width] reads memory [tokens_k, width], or itself when `memory` is None."""
        opened = self.open(hidden)
        memory = opened if memory is None else memory
        heads = (self.config.num_heads, self.config.head_width)
        context = ops.attention(
            ops.linear(opened, self.query_weight, self.query_bias).unflatten(1, heads),
            ops.linear(memory, self.key_weight, self.key_bias).unflatten(1, heads),
            ops.linear(memory, self.value_weight, self.value_bias).unflatten(1, heads),
            queries.cumulative_lengths,
            keys.cumulative_lengths,
            queries.max_length,
            keys.max_length,
            causal,
            None
            if dropout is None
            else dropout.at(self.config.attention_dropout, self.layer, self.site + PROBABILITY_OFFSET),
        )
        return self.close(
            ops.linear(context.flatten(1), self.output_weight), self.output_bias, hidden, dropout
        )


def _input_projection(width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight [width, width] and bias [width] of a query, key or value projection."""
    weight, bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width))
    nn.init.xavier_uniform_(weight, gain=1 / math.sqrt(2))
    nn.init.uniform_(bias, -(width**-0.5), width**-0.5)  # torch.nn.Linear's, as in the published code
    return weight, bias


class FeedForward(Sublayer):
    """fc2(GELU(fc1(x))); weights are [out, in]."""

    def __init__(self, config: DeltaLMConfig, layer: int, site: Site) -> None:
        super().__init__(config, layer, site)
        first = nn.Linear(config.width, config.feed_forward_width)
        second = nn.Linear(config.feed_forward_width, config.width)
        self.fc1_weight, self.fc1_bias = first.weight, first.bias
        self.fc2_weight, self.fc2_bias = second.weight, second.bias

    def forward(self, hidden: Tensor, dropout: BatchDropout | None) -> Tensor:
        """[tokens, width] to the same shape."""
        inner = ops.linear(self.open(hidden), self.fc1_weight)
        site = self.site + ACTIVATION_OFFSET
        here = None if dropout is None else dropout.at(self.config.activation_dropout, self.layer, site)
        if here is None:
            out = ops.bias_gelu_linear(inner, self.fc1_bias, self.fc2_weight)
        else:
            dropped = ops.apply_dropout(ops.bias_gelu(inner, self.fc1_bias), here)
            out = ops.linear(dropped, self.fc2_weight)
        return self.close(out, self.fc2_bias, hidden, dropout)


class Norm(nn.Module):
    """A LayerNorm of its own: after the embeddings, or behind the last layer of a pre-LN model."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__()
        self.epsilon = config.layer_norm_epsilon
        self.weight = nn.Parameter(torch.ones(config.width))
        self.bias = nn.Parameter(torch.zeros(config.width))

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to the same shape."""
        return ops.layer_norm(hidden, self.weight, self.bias, self.epsilon)
