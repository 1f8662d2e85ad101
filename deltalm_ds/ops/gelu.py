"""The feed-forward layer's activation, and its second linear layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.products import sum_of_products, times_matrix


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU(x + bias), the exact form with erf: x [tokens, features], bias [features]."""
    if kernels.support(x, bias):
        return _BiasGelu.apply(x, bias)
    return F.gelu(x + bias)


def bias_gelu_linear(x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    """GELU(x + bias) · weightᵀ: x [tokens, inner], bias [inner], weight [features, inner].

    Keeps x alone for the backward pass, which takes GELU again: a quarter of a layer's activations less.
    """
    return _BiasGeluLinear.apply(x, bias, weight)


def _gelu(x: Tensor, bias: Tensor) -> Tensor:
    return kernels.gelu(x, bias) if kernels.support(x, bias) else F.gelu(x + bias)


def _gelu_backward(
    grad: Tensor, x: Tensor, bias: Tensor, again: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of x and bias, and GELU(x + bias) once more if `again`. May work in place on `grad`."""
    if kernels.support(grad, x, bias):
        grad = grad.contiguous()
        return grad, *kernels.gelu_backward(grad, x, bias, again)
    biased = x + bias
    grad = torch.ops.aten.gelu_backward(grad, biased)
    return grad, grad.sum(0), F.gelu(biased) if again else None


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias)
        return _gelu(x, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, bias = ctx.saved_tensors
        grad_x, grad_bias, _ = _gelu_backward(grad.clone(), x, bias, again=False)
        return grad_x, grad_bias


class _BiasGeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias, weight)
        return times_matrix(_gelu(x, bias), weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, weight = ctx.saved_tensors
        grad_x, grad_bias, out = _gelu_backward(times_matrix(grad, weight), x, bias, again=True)
        assert out is not None
        return grad_x, grad_bias, sum_of_products(grad, out)
