"""Linear layers, with bf16 products taken in fp32 on CPUs that multiply fp32 faster."""

from __future__ import annotations

from collections.abc import Iterator
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


def times_matrix(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · matrix + bias: x [tokens, n], matrix [n, m], bias [m]. For use inside autograd functions."""
    dtype = calculation_dtype(x)
    if x.dtype == dtype:
        return x @ matrix if bias is None else torch.addmm(bias, x, matrix)
    out = x.new_empty(len(x), matrix.shape[1])
    matrix, bias = matrix.to(dtype), None if bias is None else bias.to(dtype)
    for part in token_parts(x):
        precise = x[part].to(dtype)
        out[part] = precise @ matrix if bias is None else torch.addmm(bias, precise, matrix)
    return out


def sum_of_products(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ · right, summed over tokens: left [tokens, n], right [tokens, m]. For autograd functions too."""
    dtype = calculation_dtype(left)
    if left.dtype == dtype:
        return left.t() @ right
    total = left.new_zeros(left.shape[1], right.shape[1], dtype=dtype)
    for part in token_parts(left):
        total.addmm_(left[part].to(dtype).t(), right[part].to(dtype))
    return total.to(left.dtype)


def token_parts(tensor: Tensor) -> Iterator[slice]:
    """Slices of tensor [tokens, …] for temporaries of a part of the tokens at a time.

    On a CPU large temporaries cost more than their traffic: fresh pages, and holes in the heap. A part is
    enough for full-speed products. On a GPU it is everything.
    """
    at_once = 1024 if tensor.device.type == "cpu" else max(1, len(tensor))
    return (slice(start, start + at_once) for start in range(0, len(tensor), at_once))


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
        return times_matrix(x, weight.t(), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_bias = grad.sum(0, dtype=torch.float32).to(grad.dtype) if ctx.has_bias else None
        return times_matrix(grad, weight), sum_of_products(grad, x), grad_bias
