"""Scaled dot-product attention over packed sequences (torch reference)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deltalm_ds.ops.philox import Dropout, probability_mask


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
    lengths_q = cumulative_lengths_q.diff().tolist()
    lengths_k = cumulative_lengths_k.diff().tolist()
    if dropout is None and len(set(lengths_q)) == 1 and len(set(lengths_k)) == 1 and lengths_k[0]:
        num_sequences = len(lengths_q)
        out = _attend(
            query.unflatten(0, (num_sequences, lengths_q[0])),
            key.unflatten(0, (num_sequences, lengths_k[0])),
            value.unflatten(0, (num_sequences, lengths_k[0])),
            causal,
        )
        return out.flatten(0, 1)
    keep = None if dropout is None else probability_mask(dropout, query.shape[1], max_length_k)
    # split, unlike slicing, gives one concatenation in the backward pass.
    parts = zip(query.split(lengths_q), key.split(lengths_k), value.split(lengths_k), strict=True)
    outputs, first = [], 0
    for q, k, v in parts:
        if not len(k):
            outputs.append(q * 0)
        elif dropout is None or keep is None:
            outputs.append(_attend(q[None], k[None], v[None], causal)[0])
        else:
            kept = keep[first : first + len(q), :, : len(k)].transpose(0, 1)
            outputs.append(_attend_dropping(q, k, v, causal, kept, dropout.scale))
        first += len(q)
    return torch.cat(outputs) if outputs else query


def _attend(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """Attention of [batch, length, heads, head_width] tensors of one length each."""
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2)


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
