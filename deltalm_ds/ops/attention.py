"""Scaled dot-product attention over packed sequences."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.cuda.checks import HEAD_WIDTH
from deltalm_ds.ops.cuda.choice import by_kernel
from deltalm_ds.ops.dropout import probability_mask
from deltalm_ds.ops.padded_attention import attend_padded
from deltalm_ds.ops.philox import Dropout
from deltalm_ds.ops.products import operand

_log = logging.getLogger(__name__)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cumulative_lengths_q: Tensor,
    cumulative_lengths_k: Tensor,
    max_length_q: int,
    max_length_k: int,
    causal: bool,
    dropout: Dropout | None = None,
) -> Tensor:
    """softmax(query · keyᵀ / √head_width) · value within each sequence, softmax in fp32.

    query [tokens_q, heads, head_width], key and value [tokens_k, heads, head_width]; cumulative lengths
    int32 [sequences + 1]; max lengths bound memory and work. `causal` hides later keys and wants equal
    lengths on both sides. `dropout`, counted over query tokens, drops probabilities. Returns
    [tokens_q, heads, head_width]; a query without keys gets zeros.
    """
    if dropout is None and _suits_kernel(query) and by_kernel("attention", query.device.type):
        lengths = (cumulative_lengths_q, cumulative_lengths_k, max_length_q, max_length_k)
        tensors = (tensor.contiguous() for tensor in (query, key, value))
        return torch.ops.deltalm.attention(*tensors, *lengths, causal)[0]
    if dropout is None and query.device.type != "cpu":
        lengths = (cumulative_lengths_q, cumulative_lengths_k, max_length_q, max_length_k)
        return attend_padded(query, key, value, *lengths, causal)
    lengths_q = cumulative_lengths_q.diff().tolist()
    lengths_k = cumulative_lengths_k.diff().tolist()
    if dropout is None:
        return _FlashOnCPU.apply(query, key, value, lengths_q, lengths_k, causal)
    keep = probability_mask(dropout, query.shape[1], max_length_k)
    # split, unlike slicing, gives one concatenation in the backward pass.
    parts = zip(query.split(lengths_q), key.split(lengths_k), value.split(lengths_k), strict=True)
    outputs, first = [], 0
    for length, (q, k, v) in zip(lengths_q, parts, strict=True):
        if len(k):
            kept = keep[first : first + length, :, : len(k)].transpose(0, 1)
            outputs.append(_attend_dropping(q, k, v, causal, kept, dropout.scale))
        else:
            outputs.append(q * 0)
        first += length
    return torch.cat(outputs) if outputs else query


def _suits_kernel(query: Tensor) -> bool:
    """Whether the kernel is made for such heads and numbers; other heads on a GPU are told of once."""
    if query.dtype not in (torch.bfloat16, torch.float16):
        return False
    if query.shape[-1] != HEAD_WIDTH and query.device.type == "cuda":
        _warn_of_heads(query.shape[-1])
    return query.shape[-1] == HEAD_WIDTH


@lru_cache(None)
def _warn_of_heads(width: int) -> None:
    _log.warning("attention runs by torch: heads are %d wide, and the kernel's are %d", width, HEAD_WIDTH)


def _attend_dropping(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, kept: Tensor, scale: float
) -> Tensor:
    """Attention of one sequence, [length, heads, head_width]; `kept` [heads, queries, keys] survive."""
    query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
    precise = torch.promote_types(query.dtype, torch.float32)
    scores = (query @ key.transpose(1, 2)).to(precise) * query.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    probabilities = scores.softmax(-1) * kept * scale
    return (probabilities.to(value.dtype) @ value).transpose(0, 1)


class _FlashOnCPU(torch.autograd.Function):
    """torch's flash attention for the CPU, called for each sequence and writing into packed tensors.

    Through scaled_dot_product_attention autograd would keep a copy of every sequence's output, and pay for
    a split and a concatenation of each tensor in both directions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lengths_q: list[int],
        lengths_k: list[int],
        causal: bool,
    ) -> Tensor:
        out = _blank(query, lengths_q, lengths_k)
        log_sums = []
        for at_q, at_k in _sequences(lengths_q, lengths_k):
            attended, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                _operand(query, at_q, "query"),
                _operand(key, at_k, "key"),
                _operand(value, at_k, "value"),
                is_causal=causal,
            )
            _heads_first(out, at_q).copy_(attended)
            log_sums.append(log_sum)
        ctx.save_for_backward(query, key, value, out, *log_sums)
        ctx.settings = lengths_q, lengths_k, causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, *log_sums = ctx.saved_tensors
        lengths_q, lengths_k, causal = ctx.settings
        gradients = [_blank(tensor, lengths_q, lengths_k) for tensor in (query, key, value)]
        places = _sequences(lengths_q, lengths_k)
        for (at_q, at_k), log_sum in zip(places, log_sums, strict=True):
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                _operand(grad, at_q, "grad"),
                _operand(query, at_q, "query"),
                _operand(key, at_k, "key"),
                _operand(value, at_k, "value"),
                _operand(out, at_q, "out"),
                log_sum,
                0.0,
                causal,
            )
            for gradient, part, at in zip(gradients, found, (at_q, at_k, at_k), strict=True):
                _heads_first(gradient, at).copy_(part)
        return *gradients, None, None, None


def _sequences(lengths_q: list[int], lengths_k: list[int]) -> Iterator[tuple[slice, slice]]:
    """Where each sequence's queries and keys lie; sequences without either are left out."""
    first_q = first_k = 0
    for length_q, length_k in zip(lengths_q, lengths_k, strict=True):
        if length_q and length_k:
            yield slice(first_q, first_q + length_q), slice(first_k, first_k + length_k)
        first_q, first_k = first_q + length_q, first_k + length_k


def _blank(like: Tensor, lengths_q: list[int], lengths_k: list[int]) -> Tensor:
    """A tensor for results: zeros where some sequence is left out."""
    return torch.empty_like(like) if all(lengths_q) and all(lengths_k) else torch.zeros_like(like)


def _heads_first(packed: Tensor, at: slice) -> Tensor:
    """One sequence of [tokens, heads, head_width] as [1, heads, length, head_width], a view."""
    return packed[at].transpose(0, 1)[None]


def _operand(packed: Tensor, at: slice, name: str) -> Tensor:
    """The same in the dtype that is multiplied fastest."""
    return operand(packed[at], name).transpose(0, 1)[None]
