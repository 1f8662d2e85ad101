"""Attention and feed-forward sub-layers, each with its residual connection and LayerNorm.

A sub-layer owns all of its parameters itself, so that ZeRO-3, which gathers a module's own parameters for
its forward, needs one gather a sub-layer and no special cases.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from deltalm_ds import ops
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.new_weights import Constant, linear_uniform, parameter, xavier_uniform
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import ACTIVATION_OFFSET, PROBABILITY_OFFSET, BatchDropout, Site


class Sublayer(nn.Module):
    """The residual frame: post-LN LN(x + f(x)), or pre-LN x + f(LN(x))."""

    def __init__(self, config: DeltaLMConfig, layer: int, site: Site) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.site = site
        self.norm_weight, self.norm_bias = norm_parameters(config.width)

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
        self.output_weight = parameter((config.width,) * 2, xavier_uniform(config.width, config.width))
        self.output_bias = parameter((config.width,), Constant(0))

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
    weight = parameter((width, width), xavier_uniform(width, width, gain=1 / math.sqrt(2)))
    return weight, parameter((width,), linear_uniform(width))  # the bias as in the published code


class FeedForward(Sublayer):
    """fc2(GELU(fc1(x))); weights are [out, in]."""

    def __init__(self, config: DeltaLMConfig, layer: int, site: Site) -> None:
        super().__init__(config, layer, site)
        self.fc1_weight, self.fc1_bias = linear_parameters(config.feed_forward_width, config.width)
        self.fc2_weight, self.fc2_bias = linear_parameters(config.width, config.feed_forward_width)

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
        self.weight, self.bias = norm_parameters(config.width)

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] to the same shape."""
        return ops.layer_norm(hidden, self.weight, self.bias, self.epsilon)


def linear_parameters(outputs: int, inputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight [outputs, inputs] and bias [outputs], which begin as torch.nn.Linear's."""
    rule = linear_uniform(inputs)
    return parameter((outputs, inputs), rule), parameter((outputs,), rule)


def norm_parameters(width: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias [width] of a LayerNorm: ones and zeros."""
    return parameter((width,), Constant(1)), parameter((width,), Constant(0))
