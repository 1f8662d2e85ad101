"""The decoder, one token of every live hypothesis at a time.

Nothing is computed twice. Keys and values of the source are made once a sentence, and all of its hypotheses
are queries against them. Keys and values of the target lie in one row of slots for each sentence: every step
fills one slot a hypothesis, and a mask tells which slots are the tokens before a hypothesis. Hypotheses are
exchanged by exchanging rows of that mask, so that keys and values are never moved for it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from deltalm_ds.decoding.caches import DecodingState, Memory
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.model.config import POSITION_OFFSET, DeltaLMConfig
from deltalm_ds.model.randomness import Site
from deltalm_ds.model.sublayers import Attention, FeedForward, Norm, Sublayer
from deltalm_ds.ops.products import calculation_dtype

SublayerStep = Callable[[Tensor, DecodingState], Tensor]


class IncrementalDecoder:
    """A model's decoder and output projection, with the weights that the model has now.

    Weights are in the dtype that the device multiplies fastest; queries, keys and values are one product.
    """

    def __init__(self, model: DeltaLM) -> None:
        self.config = model.config
        decoder = model.decoder
        self.table = _prepared(model.embedding.weight)
        self.positions = _prepared(decoder.positions.weight)
        self.embedding_norm = _norm(decoder.embedding_norm, model.config)
        self.final_norm = _norm(decoder.final_norm, model.config)
        self.sublayers: list[_Frame] = []
        self.memory_projections: list[tuple[Tensor, Tensor]] = []
        self.num_self_attentions = 0
        for block in decoder.blocks:
            for sublayer in block.children():
                self.sublayers.append(_Frame(sublayer, self._step_of(sublayer)))

    def _step_of(self, sublayer: Sublayer) -> SublayerStep:
        if isinstance(sublayer, FeedForward):
            return _FeedForwardStep(sublayer)
        assert isinstance(sublayer, Attention)
        if sublayer.site == Site.CROSS_ATTENTION:
            self.memory_projections.append(_joined(sublayer, "key", "value"))
            return _CrossAttentionStep(sublayer, len(self.memory_projections) - 1)
        self.num_self_attentions += 1
        return _SelfAttentionStep(sublayer, self.num_self_attentions - 1)

    def start(self, encoder_output: Tensor, source: PackedTokens, beam: int) -> DecodingState:
        """The state before the first token; encoder_output [source_tokens, width]."""
        encoder_output = encoder_output.to(self.table.dtype)
        heads = (self.config.num_heads, self.config.head_width)
        memory = Memory(source, [F.linear(encoder_output, *pair) for pair in self.memory_projections], heads)
        return DecodingState(memory, self.num_self_attentions, heads, beam)

    def step(self, tokens: Tensor, state: DecodingState) -> Tensor:
        """Read tokens [sentences, hypotheses]; the last hidden states [sentences * hypotheses, width]."""
        state.add_slots()
        hidden = F.embedding(tokens.flatten(), self.table) + self.positions[state.step + POSITION_OFFSET]
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        for sublayer in self.sublayers:
            hidden = sublayer(hidden, state)
        state.step += 1
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def logits(self, hidden: Tensor, out: Tensor) -> Tensor:
        """hidden [rows, width] to fp32 [rows, vocabulary_rows], written into the first rows of `out`."""
        out = out[: len(hidden)]
        if hidden.dtype == out.dtype:
            return torch.mm(hidden, self.table.t(), out=out)
        if hidden.device.type == "cuda":
            return torch.mm(hidden, self.table.t(), out_dtype=out.dtype, out=out)
        return out.copy_(torch.mm(hidden, self.table.t()))


class _Frame:
    """`Sublayer`'s residual connection and LayerNorm around a step."""

    def __init__(self, sublayer: Sublayer, function: SublayerStep) -> None:
        self.function = function
        self.pre_layer_norm = sublayer.config.pre_layer_norm
        self.norm = _LayerNorm(sublayer.norm_weight, sublayer.norm_bias, sublayer.config)

    def __call__(self, hidden: Tensor, state: DecodingState) -> Tensor:
        if self.pre_layer_norm:
            return self.function(self.norm(hidden), state).add_(hidden)
        return self.norm(self.function(hidden, state).add_(hidden))


class _LayerNorm:
    def __init__(self, weight: Tensor, bias: Tensor, config: DeltaLMConfig) -> None:
        self.weight, self.bias = _prepared(weight), _prepared(bias)
        self.epsilon = config.layer_norm_epsilon

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, self.weight.shape, self.weight, self.bias, self.epsilon)


class _FeedForwardStep:
    def __init__(self, sublayer: FeedForward) -> None:
        self.first = _prepared(sublayer.fc1_weight), _prepared(sublayer.fc1_bias)
        self.second = _prepared(sublayer.fc2_weight), _prepared(sublayer.fc2_bias)

    def __call__(self, hidden: Tensor, state: DecodingState) -> Tensor:
        return F.linear(F.gelu(F.linear(hidden, *self.first)), *self.second)


class _SelfAttentionStep:
    def __init__(self, sublayer: Attention, number: int) -> None:
        self.number = number
        self.input = _joined(sublayer, "query", "key", "value")
        self.output = _joined(sublayer, "output")

    def __call__(self, hidden: Tensor, state: DecodingState) -> Tensor:
        query, key, value = state.by_sentence(F.linear(hidden, *self.input), 3)
        keys, values = state.append(self.number, key, value)
        return F.linear(_attend(query, keys, values, state.seen_slots), *self.output)


class _CrossAttentionStep:
    def __init__(self, sublayer: Attention, number: int) -> None:
        self.number = number
        self.query = _joined(sublayer, "query")
        self.output = _joined(sublayer, "output")

    def __call__(self, hidden: Tensor, state: DecodingState) -> Tensor:
        (query,) = state.by_sentence(F.linear(hidden, *self.query), 1)
        keys, values = state.memory.of(self.number)
        return F.linear(_attend(query, keys, values, state.memory.seen), *self.output)


def _attend(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """query [sentences, heads, hypotheses, head_width] to [sentences * hypotheses, width].

    keys and values [sentences, heads, slots, head_width]; seen [sentences, 1, hypotheses or 1, slots] is
    added to the scores.
    """
    context = F.scaled_dot_product_attention(query, keys, values, attn_mask=seen)
    return context.transpose(1, 2).flatten(2).flatten(0, 1)


def _prepared(parameter: Tensor) -> Tensor:
    parameter = parameter.detach()
    return parameter.to(calculation_dtype(parameter))


def _joined(sublayer: Attention, *names: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of projections that read the same hidden states, as one."""
    weights = [_prepared(getattr(sublayer, f"{name}_weight")) for name in names]
    biases = [_prepared(getattr(sublayer, f"{name}_bias")) for name in names]
    return (weights[0], biases[0]) if len(names) == 1 else (torch.cat(weights), torch.cat(biases))


def _norm(norm: Norm | None, config: DeltaLMConfig) -> _LayerNorm | None:
    return None if norm is None else _LayerNorm(norm.weight, norm.bias, config)
