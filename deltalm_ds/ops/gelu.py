"""The feed-forward layer's activation, and its second linear layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.cuda.checks import DTYPES
from deltalm_ds.ops.cuda.choice import by_kernel
from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.products import multiply, operand, token_parts, weight_sum
from deltalm_ds.ops.scratch import scratch


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU(x + bias), the exact form with erf: x [tokens, features], bias [features]."""
    if _suits_kernel(x) and by_kernel("gelu", x.device.type):
        return torch.ops.deltalm.gelu(x.contiguous(), bias)
    return _BiasGelu.apply(x.contiguous(), bias)


def bias_gelu_linear(x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    """GELU(x + bias) · weightᵀ: x [tokens, inner], bias [inner], weight [features, inner].

    Keeps x alone for the backward pass, which takes GELU again: a quarter of a layer's activations less.
    """
    if _suits_kernel(x) and by_kernel("gelu", x.device.type):
        return torch.ops.deltalm.gelu_linear(x.contiguous(), bias, weight)
    return _BiasGeluLinear.apply(x.contiguous(), bias, weight)


def _suits_kernel(x: Tensor) -> bool:
    return x.dtype in DTYPES and x.shape[1] % 8 == 0


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias)
        return _gelu(x, bias, torch.empty_like(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, bias = ctx.saved_tensors
        grad = grad.clone(memory_format=torch.contiguous_format)
        grad_bias = _gelu_backward(grad, x, bias, torch.empty_like(x))
        return grad, grad_bias


class _BiasGeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias, weight)
        matrix = operand(weight, "weight").t()
        out = x.new_empty(len(x), len(weight))
        for part in token_parts(x):
            activated = _gelu(x[part], bias, _scratch_like(x[part], "activated"))
            multiply(operand(activated, "left"), matrix, out=out[part])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, weight = ctx.saved_tensors
        matrix = operand(weight, "weight")
        grad_x = torch.empty_like(x)
        grad_weight = weight_sum(weight)
        grad_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        for part in token_parts(x):
            part_grad = operand(grad[part], "left")
            multiply(part_grad, matrix, out=grad_x[part])
            activated = _scratch_like(x[part], "activated")
            grad_bias += _gelu_backward(grad_x[part], x[part], bias, activated)
            grad_weight.addmm_(part_grad.t(), operand(activated, "right"))
        return grad_x, grad_bias.to(bias.dtype), grad_weight.to(weight.dtype)


def _gelu(x: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """out = GELU(x + bias), all contiguous."""
    if kernels.support(x, bias):
        kernels.gelu(x, bias, out)
        return out
    return torch.ops.aten.gelu.out(x + bias, out=out)


def _gelu_backward(grad: Tensor, x: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """The gradient of bias; `grad` becomes that of x, and out = GELU(x + bias) once more; all contiguous."""
    if kernels.support(grad, x, bias):
        return kernels.gelu_backward(grad, x, bias, out)
    biased = x + bias
    torch.ops.aten.gelu.out(biased, out=out)
    grad.copy_(torch.ops.aten.gelu_backward(grad, biased))
    return grad.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32)).to(grad.dtype)


def _scratch_like(tensor: Tensor, name: str) -> Tensor:
    return scratch(name, tuple(tensor.shape), tensor.dtype, tensor.device)
