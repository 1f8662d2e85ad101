"""What the kernels must compute, in fp64 by autograd, and how far they may be from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deltalm_ds.ops import Dropout
from deltalm_ds.ops.dropout import keep_mask

# Of the norm: a rounding of each result, and of what is multiplied on the way.
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 6e-4}


def assert_close(
    found: Tensor, expected: Tensor, dtype: torch.dtype | None = None, name: str = "", slack: float = 1e-6
) -> None:
    """The error's norm is within the rounding of `dtype` (found's own by default), and so is every number.

    `slack` is allowed besides, for results that are 0 but for the rounding of what they were summed from.
    """
    dtype = dtype or found.dtype
    error = (found.double() - expected.double()).abs()
    scale = expected.double().abs().max() if expected.numel() else torch.tensor(0.0)
    norm = expected.double().norm()
    assert not torch.isnan(error).any(), name
    assert error.norm() <= TOLERANCES[dtype] * norm + slack, (name, float(error.norm() / norm))
    if error.numel():
        assert error.max() <= 8 * TOLERANCES[dtype] * scale + slack, (name, float(error.max()), float(scale))


def exact(*tensors: Tensor) -> list[Tensor]:
    """fp64 leaves of the same values."""
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def attention(
    query: Tensor, key: Tensor, value: Tensor, lengths_q: list[int], lengths_k: list[int], causal: bool
) -> tuple[Tensor, Tensor]:
    """`ops.attention` and the scores' log-sums [heads, tokens_q], sequence by sequence."""
    outs, log_sums = [], []
    parts = zip(query.split(lengths_q), key.split(lengths_k), value.split(lengths_k), strict=True)
    for q, k, v in parts:
        scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -math.inf)
        if len(k):
            outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
            log_sums.append(scores.logsumexp(-1))
        else:
            outs.append(q * 0)
            log_sums.append(q.new_full((q.shape[1], len(q)), -math.inf))
    return torch.cat(outs), torch.cat(log_sums, 1)


def add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    dropout: Dropout | None,
) -> Tensor:
    """LayerNorm(residual + dropout(x + bias)), or the sum alone."""
    kept = 1.0 if dropout is None else keep_mask(dropout, x.shape[1]) * dropout.scale
    total = residual + (x + bias) * kept
    if gamma is None:
        return total
    return torch.nn.functional.layer_norm(total, (x.shape[1],), gamma, beta, epsilon)


def made_dropout(num_tokens: int, probability: float) -> Dropout | None:
    """Positions past 2^32 among the samples', so that every word of the counter counts."""
    if not probability:
        return None
    tokens = torch.arange(num_tokens)
    return Dropout(
        probability=probability,
        seed=2**31 + 5,
        step=123,
        layer=7,
        site=3,
        sample_of_token=tokens // 5 + 2**33,
        index_of_token=tokens % 5,
    )
