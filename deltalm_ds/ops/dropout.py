"""Dropout, and the masks of what survives it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.cuda.checks import suits_norm
from deltalm_ds.ops.cuda.choice import by_kernel
from deltalm_ds.ops.cuda.operations import dropout_arguments
from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.philox import DECISIONS_PER_CALL, MAX_TOKENS_IN_SAMPLE, Dropout, decide


def apply_dropout(x: Tensor, dropout: Dropout | None) -> Tensor:
    """Dropout alone: x [tokens, features] to the same shape."""
    if dropout is None:
        return x
    if suits_norm(x) and by_kernel("add_norm", x.device.type):
        bias, residual = x.new_zeros(x.shape[1]), torch.zeros_like(x)
        settings = (None, None, 0.0, *dropout_arguments(dropout))
        return torch.ops.deltalm.add_norm(x.contiguous(), bias, residual, *settings)[0]
    if kernels.support(x):
        return _Dropout.apply(x, dropout)
    return (x * keep_mask(dropout, x.shape[1])) * dropout.scale


def keep_mask(dropout: Dropout, num_features: int) -> Tensor:
    """Which features survive: bool [tokens, num_features]."""
    return _mask(dropout, 1, 0, num_features).squeeze(1)


def probability_mask(dropout: Dropout, num_heads: int, num_keys: int) -> Tensor:
    """Which attention probabilities survive: bool [query tokens, num_heads, num_keys].

    Head and key number make feature head << 16 | key, so that no other sequence's length changes a bit.
    """
    return _mask(dropout, num_heads, MAX_TOKENS_IN_SAMPLE // DECISIONS_PER_CALL, num_keys)


def _mask(dropout: Dropout, num_groups: int, calls_a_group: int, num_features: int) -> Tensor:
    """bool [tokens, num_groups, num_features]; group g is decided from call number g · calls_a_group on."""
    if kernels.support(dropout.sample_of_token.new_empty(0, dtype=torch.float32)):
        return kernels.keep_mask(dropout, num_groups, calls_a_group, num_features)
    device = dropout.sample_of_token.device
    calls = torch.arange(-(-num_features // DECISIONS_PER_CALL), device=device)
    groups = torch.arange(num_groups, device=device) * calls_a_group
    decisions = decide(dropout, (groups[:, None] + calls).flatten())
    return decisions.unflatten(1, (num_groups, -1))[:, :, :num_features]


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: Dropout) -> Tensor:
        ctx.dropout = dropout
        return kernels.apply_dropout(x, dropout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return kernels.apply_dropout(grad, ctx.dropout), None
