"""The feed-forward layer's activation, and its second linear layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.products import calculation_dtype, token_parts


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


def _gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x and bias, and GELU(x + bias) once more; grad, contiguous, may be overwritten."""
    if kernels.support(grad, x, bias):
        return grad, *kernels.gelu_backward(grad, x, bias)
    biased = x + bias
    grad = torch.ops.aten.gelu_backward(grad, biased)
    return grad, grad.sum(0), F.gelu(biased)


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias)
        return _gelu(x, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, bias = ctx.saved_tensors
        copy = grad.clone(memory_format=torch.contiguous_format)
        grad_x, grad_bias, _ = _gelu_backward(copy, x, bias)
        return grad_x, grad_bias


class _BiasGeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias, weight)
        matrix = weight.to(calculation_dtype(x)).t()
        out = x.new_empty(len(x), len(weight))
        for part in token_parts(x):
            out[part] = _gelu(x[part], bias).to(matrix.dtype) @ matrix
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, weight = ctx.saved_tensors
        matrix = weight.to(calculation_dtype(x))
        grad_x = torch.empty_like(x)
        grad_weight = torch.zeros_like(matrix)
        grad_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        for part in token_parts(x):
            precise = grad[part].to(matrix.dtype)
            part_grad, part_bias, activated = _gelu_backward((precise @ matrix).to(x.dtype), x[part], bias)
            grad_x[part] = part_grad
            grad_bias += part_bias
            grad_weight.addmm_(precise.t(), activated.to(matrix.dtype))
        return grad_x, grad_bias.to(bias.dtype), grad_weight.to(weight.dtype)
