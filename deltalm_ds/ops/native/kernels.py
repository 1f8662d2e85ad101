"""The C kernels as functions of tensors on the CPU, in fp32 or bf16.

They take what `support` accepted. Outputs are new tensors, but where a function says that it works in place.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from deltalm_ds.ops.native.library import library
from deltalm_ds.ops.philox import Dropout

_DTYPES = {torch.float32: 0, torch.bfloat16: 1}
_TOKENS_A_PART = 64  # as in rows.h


class _Dropout(ctypes.Structure):
    """struct dropout of philox.h."""

    _fields_ = [
        ("seed", ctypes.c_uint32),
        ("place", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
        ("sample_of_token", ctypes.c_void_p),
        ("index_of_token", ctypes.c_void_p),
    ]


def support(*tensors: Tensor | None) -> bool:
    """Whether the kernels can work on these: on the CPU, one dtype, fp32 or bf16, and compiled."""
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == given[0].dtype for tensor in given)
        and given[0].dtype in _DTYPES
        and library() is not None
    )


def keep_mask(dropout: Dropout, num_groups: int, calls_a_group: int, num_features: int) -> Tensor:
    """bool [tokens, num_groups, num_features]; group g is decided from call number g · calls_a_group on."""
    num_tokens = len(dropout.sample_of_token)
    mask = torch.empty(num_tokens, num_groups, num_features, dtype=torch.bool)
    _call("keep_mask", mask, dropout, num_tokens, num_groups, calls_a_group, num_features)
    return mask


def apply_dropout(x: Tensor, dropout: Dropout) -> Tensor:
    """x [tokens, features] with dropout; also the gradient of that."""
    x = x.contiguous()
    out = torch.empty_like(x)
    _call("dropout", out, x, dropout, *x.shape, _DTYPES[x.dtype])
    return out


def add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    dropout: Dropout | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """LayerNorm(sum), sum = residual + dropout(x + bias), and fp32 mean and 1/deviation [tokens] of sum.

    Without gamma only sum counts, and stands in place of the LayerNorm too.
    """
    x, residual = x.contiguous(), residual.contiguous()
    total = torch.empty_like(x)
    out = total if gamma is None else torch.empty_like(x)
    mean, rstd = x.new_empty(len(x), dtype=torch.float32), x.new_empty(len(x), dtype=torch.float32)
    inputs = (x, bias, residual, gamma, beta)
    _call("add_norm", out, total, mean, rstd, *inputs, epsilon, dropout, *x.shape, _DTYPES[x.dtype])
    return out, total, mean, rstd


def add_norm_backward(
    grad: Tensor,
    total: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor | None,
    gamma: Tensor | None,
    dropout: Dropout | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of x, bias, residual, gamma and beta of `add_norm`, which gave total, mean and rstd."""
    grad = grad.contiguous()
    width = grad.shape[1]
    grad_total = grad if gamma is None else torch.empty_like(grad)
    grad_x = grad_total if dropout is None else torch.empty_like(grad)
    grad_bias = grad.new_empty(width)
    grad_gamma = None if gamma is None else grad.new_empty(width)
    grad_beta = None if gamma is None else grad.new_empty(width)
    outputs = (grad_total, grad_x, grad_bias, grad_gamma, grad_beta, _part_sums(grad, 3))
    inputs = (grad, total, mean, rstd, gamma)
    _call("add_norm_backward", *outputs, *inputs, dropout, *grad.shape, _DTYPES[grad.dtype])
    return grad_x, grad_bias, grad_total, grad_gamma, grad_beta


def gelu(x: Tensor, bias: Tensor, out: Tensor) -> None:
    """out = GELU(x + bias); x and out [tokens, features], bias [features]."""
    _call("gelu", out, x, bias, *x.shape, _DTYPES[x.dtype])


def gelu_backward(grad: Tensor, x: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """The gradient of bias; grad becomes x's gradient in place, and out = GELU(x + bias) once more."""
    grad_bias = torch.empty_like(bias)
    outputs = (grad, grad_bias, out, _part_sums(grad, 1))
    _call("gelu_backward", *outputs, x, bias, *grad.shape, _DTYPES[grad.dtype])
    return grad_bias


def softmax_add(
    logits: Tensor,
    labels: Tensor,
    highest: Tensor,
    exponentials: Tensor,
    sums: Tensor,
    label_logits: Tensor,
    first_class: int,
) -> None:
    """Add logits [tokens, classes] to the running numbers of `ops.softmax.BlockedSoftmax`, in place."""
    running = (highest, exponentials, sums, label_logits)
    _call("softmax_add", logits, labels, *running, first_class, *logits.shape, _DTYPES[logits.dtype])


def softmax_gradient(
    logits: Tensor,
    labels: Tensor,
    highest: Tensor,
    exponentials: Tensor,
    on_target: float,
    on_all: float,
    first_class: int,
) -> None:
    """logits [tokens, classes] become the gradient, in place."""
    settings = (highest, exponentials, float(on_target), float(on_all), first_class)
    _call("softmax_gradient", logits, labels, *settings, *logits.shape, _DTYPES[logits.dtype])


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest, 1 to n, of each row of x [rows, n] fp32 and their places, [rows, count]."""
    values = x.new_empty(len(x), count)
    places = x.new_empty(len(x), count, dtype=torch.int64)
    _call("largest", values, places, x.contiguous(), *x.shape, count)
    return values, places


def attend_slots(joined: Tensor, keys: Tensor, values: Tensor, seen: Tensor, num_slots: int) -> Tensor:
    """`ops.slot_attention.attend_slots` of contiguous fp32 tensors."""
    num_sentences, num_heads, room, head_width = keys.shape
    out = joined.new_empty(len(joined), num_heads * head_width)
    sizes = (num_sentences, len(joined) // num_sentences, num_heads, head_width, joined.shape[1], room)
    _call("attend_slots", out, joined, keys, values, seen, *sizes, num_slots, seen.shape[2])
    return out


def _part_sums(grad: Tensor, num_sums: int) -> Tensor:
    """Workspace for sums over tokens; one part at least, which then holds the result."""
    num_parts = max(1, -(-len(grad) // _TOKENS_A_PART))
    return grad.new_empty(num_parts, num_sums, grad.shape[1], dtype=torch.float32)


def _call(name: str, *arguments: Tensor | Dropout | float | None) -> None:
    """Call the kernel: tensors and dropouts as pointers, float as float, int as int64, the threads last."""
    kernels = library()
    assert kernels is not None
    getattr(kernels, f"deltalm_{name}")(*map(_as_c, arguments), _as_c(torch.get_num_threads()))


def _as_c(value: Tensor | Dropout | float | None) -> object:
    if value is None:
        return None
    if isinstance(value, Tensor):
        assert value.is_contiguous()
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, Dropout):
        seed, place = value.key
        assert value.sample_of_token.is_contiguous()
        assert value.index_of_token.is_contiguous()
        # The tensors stay alive in `value`, which the caller holds.
        tokens = value.sample_of_token.data_ptr(), value.index_of_token.data_ptr()
        return ctypes.byref(_Dropout(seed, place, value.step, value.drop_threshold, value.scale, *tokens))
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)
