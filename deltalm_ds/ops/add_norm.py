"""What closes a sub-layer: bias, dropout, residual, LayerNorm."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.cuda.checks import suits_norm
from deltalm_ds.ops.cuda.choice import by_kernel
from deltalm_ds.ops.cuda.operations import dropout_arguments
from deltalm_ds.ops.dropout import keep_mask
from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.philox import Dropout


def dropout_add_layer_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    dropout: Dropout | None,
    epsilon: float,
) -> Tensor:
    """LayerNorm(residual + dropout(x + bias)), statistics in fp32.

    x, residual [tokens, features]; bias, gamma, beta [features]. Returns [tokens, features].
    """
    if suits_norm(x) and by_kernel("add_norm", x.device.type):
        return _by_kernel(x, bias, residual, gamma, beta, epsilon, dropout)
    if kernels.support(x, bias, residual, gamma, beta):
        return _AddNorm.apply(x, bias, residual, gamma, beta, epsilon, dropout)
    return layer_norm(dropout_add(x, bias, residual, dropout), gamma, beta, epsilon)


def dropout_add(x: Tensor, bias: Tensor, residual: Tensor, dropout: Dropout | None) -> Tensor:
    """residual + dropout(x + bias), the end of a sub-layer that normalises first; shapes as above."""
    if suits_norm(x) and by_kernel("add_norm", x.device.type):
        return _by_kernel(x, bias, residual, None, None, 0.0, dropout)
    if kernels.support(x, bias, residual):
        return _AddNorm.apply(x, bias, residual, None, None, 0.0, dropout)
    if dropout is None:
        return residual + (x + bias)
    kept = (x + bias) * keep_mask(dropout, x.shape[1])
    return residual.add(kept, alpha=dropout.scale)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """LayerNorm over the features of x [tokens, features], statistics in fp32."""
    return F.layer_norm(x, (x.shape[1],), gamma, beta, epsilon)


def _by_kernel(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    dropout: Dropout | None,
) -> Tensor:
    inputs = (x.contiguous(), bias, residual.contiguous(), gamma, beta)
    return torch.ops.deltalm.add_norm(*inputs, epsilon, *dropout_arguments(dropout))[0]


class _AddNorm(torch.autograd.Function):
    """Both operations above in the CPU's kernel; the dropout mask is made again rather than kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor,
        residual: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        epsilon: float,
        dropout: Dropout | None,
    ) -> Tensor:
        out, total, mean, rstd = kernels.add_norm(x, bias, residual, gamma, beta, epsilon, dropout)
        ctx.dropout = dropout
        ctx.save_for_backward(*([] if gamma is None else [total, mean, rstd, gamma]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        total, mean, rstd, gamma = ctx.saved_tensors or (None, None, None, None)
        return *kernels.add_norm_backward(grad, total, mean, rstd, gamma, ctx.dropout), None, None
