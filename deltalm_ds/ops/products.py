"""Matrix products, in fp32 for 16-bit tensors on CPUs that multiply fp32 faster."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.scratch import scratch


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x · weightᵀ + bias: x [tokens, in], weight [out, in], bias [out]; sums in fp32."""
    if x.dtype == calculation_dtype(x):
        return F.linear(x, weight, bias)
    return _LinearInFP32.apply(x, weight, bias)


@lru_cache(None)
def cpu_has_matrix_unit() -> bool:
    """Whether 16-bit products run on AMX, several times as fast as fp32.

    The vector instructions for bf16 that other processors have are no substitute: where AMX is hidden from
    a virtual machine, they were measured at half the speed of fp32, and without any at a hundredth.
    """
    return torch.cpu._is_amx_tile_supported()


def calculation_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which the tensor's device multiplies such tensors fastest, at no loss of precision."""
    short = tensor.dtype in (torch.bfloat16, torch.float16)
    slow = short and tensor.device.type == "cpu" and not cpu_has_matrix_unit()
    return torch.float32 if slow else tensor.dtype


def operand(tensor: Tensor, name: str) -> Tensor:
    """The tensor in its calculation dtype: itself, or a copy that holds until the next one of that name."""
    dtype = calculation_dtype(tensor)
    if tensor.dtype == dtype:
        return tensor
    return scratch(name, tuple(tensor.shape), dtype, tensor.device).copy_(tensor)


def multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """out = left · right of operands, rounded to the dtype of `out`."""
    if out.dtype == left.dtype:
        torch.mm(left, right, out=out)
    else:
        shape = (left.shape[0], right.shape[1])
        out.copy_(torch.mm(left, right, out=scratch("product", shape, left.dtype, left.device)))


def weight_sum(weight: Tensor) -> Tensor:
    """Zeros in which to sum the weight's gradient; scratch where that needs another dtype."""
    dtype = calculation_dtype(weight)
    if dtype == weight.dtype:
        return torch.zeros_like(weight)
    return scratch("sum", tuple(weight.shape), dtype, weight.device).zero_()


def token_parts(tensor: Tensor) -> Iterator[slice]:
    """Slices of tensor [tokens, …] for temporaries of a part of the tokens at a time.

    On a CPU a part is enough for full-speed products and leaves the temporaries in the cache; on a GPU it is
    everything.
    """
    at_once = 1024 if tensor.device.type == "cpu" else max(1, len(tensor))
    return (slice(start, start + at_once) for start in range(0, len(tensor), at_once))


class _LinearInFP32(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        matrix = operand(weight, "weight").t()
        out = x.new_empty(len(x), len(weight))
        for part in token_parts(x):
            shape = (len(out[part]), len(weight))
            product = scratch("product", shape, matrix.dtype, matrix.device)
            torch.mm(operand(x[part], "left"), matrix, out=product)
            out[part] = product if bias is None else product.add_(bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        matrix = operand(weight, "weight")
        grad_x = torch.empty_like(x)
        grad_weight = weight_sum(weight)
        for part in token_parts(grad):
            part_grad = operand(grad[part], "left")
            multiply(part_grad, matrix, out=grad_x[part])
            grad_weight.addmm_(part_grad.t(), operand(x[part], "right"))
        grad_bias = grad.sum(0, dtype=torch.float32).to(grad.dtype) if ctx.has_bias else None
        return grad_x, grad_weight.to(weight.dtype), grad_bias
