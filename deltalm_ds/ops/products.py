"""Linear layers, with bf16 products taken in fp32 on CPUs that multiply fp32 faster."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias: x [tokens, in], weight [out, in], bias [out]; sums in fp32."""
    if x.dtype == calculation_dtype(x):
        return F.linear(x, weight, bias)
    return _LinearInFP32.apply(x, weight, bias)


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of two matrices, sums in fp32; not differentiable where it leaves bf16."""
    dtype = calculation_dtype(left)
    return (left.to(dtype) @ right.to(dtype)).to(left.dtype)


def calculation_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which the tensor's device multiplies such tensors fastest, at no loss of precision."""
    slow = tensor.device.type == "cpu" and tensor.dtype == torch.bfloat16 and not cpu_has_matrix_unit()
    return torch.float32 if slow else tensor.dtype


@lru_cache(None)
def cpu_has_matrix_unit() -> bool:
    """Whether bf16 products run on AMX, several times as fast as fp32.

    The vector instructions for bf16 that other processors have are no substitute: where AMX is hidden from
    a virtual machine, they were measured at half the speed of fp32.
    """
    return torch.cpu._is_amx_tile_supported()


class _LinearInFP32(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        precise = grad.float()
        grad_x = (precise @ weight.float()).to(x.dtype)
        grad_weight = (precise.t() @ x.float()).to(weight.dtype)
        return grad_x, grad_weight, precise.sum(0).to(grad.dtype) if ctx.has_bias else None
