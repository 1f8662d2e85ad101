"""The compiled GPU kernels as functions of tensors.

Every function checks its arguments before the launch: a ValueError names the argument and what it must be.
What CUDA reports is a RuntimeError with the kernel's name. Work goes to torch's current stream, outputs are
new tensors but where a function says that it works in place, and equal inputs give equal bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from deltalm_ds.ops.cuda.checks import (
    DTYPES,
    AdamTensors,
    Check,
    check_adam,
    check_attention,
    check_gelu,
    check_norm,
    check_width,
)
from deltalm_ds.ops.philox import Dropout

_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_MAX_PARTS = 512  # as in column_sums.h
_LEAST_TOKENS_A_PART = 16
_ADAM_CHUNK = 1 << 14  # as in adam.cu


class _Dropout(ctypes.Structure):
    """struct Dropout of kernels/dropout.h."""

    _fields_ = [
        ("seed", ctypes.c_uint32),
        ("place", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
        ("sample_of_token", ctypes.c_void_p),
        ("index_of_token", ctypes.c_void_p),
    ]


class AdamUpdate(NamedTuple):
    """Numbers of one step of Adam with decoupled weight decay."""

    beta1: float
    beta2: float
    step_size: float
    """Learning rate / (1 - beta1^t)."""
    decay: float
    """1 - learning rate · weight decay."""
    root_of_correction: float
    """√(1 - beta2^t)."""
    epsilon: float


class Kernels:
    """The functions of one compiled library.

    `device_type` is where its tensors live: "cuda", or "cpu" for the library that tests compile for the CPU.
    """

    def __init__(self, library: ctypes.CDLL, device_type: str = "cuda") -> None:
        self._library = library
        self._library.deltalm_error_text.restype = ctypes.c_char_p
        self._device_type = device_type

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cumulative_lengths_q: Tensor,
        cumulative_lengths_k: Tensor,
        max_length_q: int,
        max_length_k: int,
        causal: bool,
    ) -> tuple[Tensor, Tensor]:
        """`ops.attention` for heads 64 wide; also the log-sums of its scores, fp32 [heads, tokens_q]."""
        lengths = (cumulative_lengths_q, cumulative_lengths_k), (max_length_q, max_length_k)
        check_attention(self._check("attention", query), query, key, value, *lengths, causal)
        out = torch.empty_like(query)
        log_sums = query.new_empty(query.shape[1], len(query), dtype=torch.float32)
        if not out.numel():
            return out, log_sums
        self._call(
            "attention",
            *(out, log_sums, query, key, value, cumulative_lengths_q, cumulative_lengths_k),
            *(len(cumulative_lengths_q) - 1, len(query), max_length_q, query.shape[1]),
            *(query.shape[2] ** -0.5, int(causal), _CODES[query.dtype]),
        )
        return out, log_sums

    def attention_backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        log_sums: Tensor,
        cumulative_lengths_q: Tensor,
        cumulative_lengths_k: Tensor,
        max_length_q: int,
        max_length_k: int,
        causal: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of query, key and value, from what `attention` was given and gave."""
        check = self._check("attention_backward", query)
        lengths = (cumulative_lengths_q, cumulative_lengths_k), (max_length_q, max_length_k)
        check_attention(check, query, key, value, *lengths, causal)
        check.like("grad", grad, query)
        check.like("out", out, query)
        check.tensor("log_sums", log_sums, (torch.float32,), (query.shape[1], len(query)))
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        deltas = torch.empty_like(log_sums)
        self._call(
            "attention_backward",
            *(*gradients, deltas, grad, query, key, value, out, log_sums),
            *(cumulative_lengths_q, cumulative_lengths_k, len(cumulative_lengths_q) - 1, len(query)),
            *(max_length_q, max_length_k, query.shape[1]),
            *(query.shape[2] ** -0.5, int(causal), _CODES[query.dtype]),
        )
        return gradients

    def add_norm(
        self,
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
        check = self._check("add_norm", x)
        check_norm(check, x, bias, residual, gamma, beta, dropout)
        total = torch.empty_like(x)
        out = total if gamma is None else torch.empty_like(x)
        mean, rstd = (x.new_empty(len(x), dtype=torch.float32) for _ in range(2))
        self._call(
            "add_norm",
            *(out, total, mean, rstd, x, bias, residual, gamma, beta),
            *(float(epsilon), dropout or NO_DROPOUT, *x.shape, _CODES[x.dtype]),
        )
        return out, total, mean, rstd

    def add_norm_backward(
        self,
        grad: Tensor,
        total: Tensor | None,
        mean: Tensor | None,
        rstd: Tensor | None,
        gamma: Tensor | None,
        dropout: Dropout | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Gradients of x, bias, residual, gamma and beta of `add_norm`, which gave total, mean and rstd."""
        check = self._check("add_norm_backward", grad)
        check.tensor("grad", grad, DTYPES, (None, None))
        check_width(check, grad)
        if gamma is not None:
            check.given("total", total)
            check.like("total", total, grad)
            check.tensor("gamma", gamma, (grad.dtype,), (grad.shape[1],))
            for name, tensor in (("mean", mean), ("rstd", rstd)):
                check.tensor(name, tensor, (torch.float32,), (len(grad),))
        check.dropout(dropout, len(grad))
        grad_total = grad if gamma is None else torch.empty_like(grad)
        grad_x = grad_total if dropout is None else torch.empty_like(grad)
        grad_bias, grad_gamma, grad_beta = (
            grad.new_empty(grad.shape[1]) if wanted else None
            for wanted in (True, gamma is not None, gamma is not None)
        )
        self._call(
            "add_norm_backward",
            *(grad_total, grad_x, grad_bias, grad_gamma, grad_beta, _part_sums(grad, 3)),
            *(grad, total, mean, rstd, gamma, dropout or NO_DROPOUT, *grad.shape, _CODES[grad.dtype]),
        )
        assert grad_bias is not None
        return grad_x, grad_bias, grad_total, grad_gamma, grad_beta

    def gelu(self, x: Tensor, bias: Tensor) -> Tensor:
        """GELU(x + bias); x [tokens, features], bias [features]."""
        check = self._check("gelu", x)
        check_gelu(check, x, bias)
        out = torch.empty_like(x)
        self._call("gelu", out, x, bias, *x.shape, _CODES[x.dtype])
        return out

    def gelu_backward(
        self, grad: Tensor, x: Tensor, bias: Tensor, grad_x: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """The gradient of bias; grad_x, which may be grad itself, gets that of x, and out GELU(x + bias)."""
        check = self._check("gelu_backward", x)
        check_gelu(check, x, bias)
        check.like("grad", grad, x)
        check.like("grad_x", grad_x, x)
        if out is not None:
            check.like("out", out, x)
        grad_bias = torch.empty_like(bias)
        outputs = (grad_x, grad_bias, out, _part_sums(grad, 1))
        self._call("gelu_backward", *outputs, grad, x, bias, *x.shape, _CODES[x.dtype])
        return grad_bias

    def cross_entropy(
        self, logits: Tensor, labels: Tensor, on_target: float, on_all: float, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and loss, fp32 [tokens]; logits [tokens, classes], labels int64 [tokens].

        The loss is on_target · nll + on_all · (the sum of all classes' nll), and on_target + classes · on_all
        is 1. `with_gradient`, the gradient of the summed loss takes the logits' place.
        """
        check = self._check("cross_entropy", logits)
        check.tensor("logits", logits, DTYPES, (None, None))
        check.multiple_of_8("classes", logits.shape[1])
        check.tensor("labels", labels, (torch.int64,), (len(logits),))
        nll, loss = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(2))
        settings = (float(on_target), float(on_all), *logits.shape, int(with_gradient), _CODES[logits.dtype])
        self._call("cross_entropy", logits, nll, loss, labels, *settings)
        return nll, loss

    def adam(self, tensors: Sequence[AdamTensors], update: AdamUpdate, grad_scale: Tensor | None) -> None:
        """One step of Adam on all tensors, in place and in one launch.

        Gradients of all have one dtype, rounded weights too. Their gradient is multiplied by `grad_scale`
        (fp32 scalar on the device); where that is not finite nothing changes.
        """
        tensors = [one for one in tensors if one.weight.numel()]
        if not tensors:
            return
        first = tensors[0]
        check = self._check("adam", first.weight)
        for one in tensors:
            check_adam(check, one, first)
        if grad_scale is not None:
            check.tensor("grad_scale", grad_scale, (torch.float32,), ())
        pointers = tuple(0 if tensor is None else tensor.data_ptr() for one in tensors for tensor in one)
        lengths = tuple(one.weight.numel() for one in tensors)
        device = first.weight.device
        rows = _table_on_device(device, pointers, lengths)
        chunks = _chunks_on_device(device, lengths)
        rounded_dtype = torch.float32 if first.rounded_weight is None else first.rounded_weight.dtype
        settings = (*map(float, update), _CODES[first.grad.dtype], _CODES[rounded_dtype])
        self._call("adam", rows, chunks, len(chunks), grad_scale, *settings)

    def _check(self, function: str, tensor: Tensor) -> Check:
        """All tensors must be where `tensor` is, if that is a device of ours."""
        is_ours = tensor.device.type == self._device_type
        return Check(function, tensor.device if is_ours else torch.device(self._device_type))

    def _call(self, name: str, *arguments: Tensor | Dropout | float | None) -> None:
        """Launch: tensors and dropouts as pointers, float as float, int as int64, the stream last."""
        function = getattr(self._library, f"deltalm_{name}")
        if self._device_type == "cuda":
            device = next(value.device for value in arguments if isinstance(value, Tensor))
            stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
            with torch.cuda.device(device):
                error = function(*map(_as_c, arguments), stream)
        else:
            error = function(*map(_as_c, arguments), None)
        if error:
            words = self._library.deltalm_error_text(ctypes.c_int(error)).decode()
            raise RuntimeError(f"kernel {name}: CUDA error {error}, {words}")


def _part_sums(grad: Tensor, num_sums: int) -> Tensor:
    """Workspace for sums over tokens, one row of them a part."""
    tokens_a_part = max(_LEAST_TOKENS_A_PART, -(-len(grad) // _MAX_PARTS))
    num_parts = -(-len(grad) // tokens_a_part)
    return grad.new_empty(num_parts, num_sums, grad.shape[1], dtype=torch.float32)


@lru_cache(8)
def _table_on_device(device: torch.device, pointers: tuple[int, ...], lengths: tuple[int, ...]) -> Tensor:
    """adam.cu's table of tensors: rows of pointers, and a length."""
    rows = torch.tensor(pointers, dtype=torch.int64).view(len(lengths), -1)
    return _sent(torch.cat([rows, torch.tensor(lengths)[:, None]], 1), device)


@lru_cache(8)
def _chunks_on_device(device: torch.device, lengths: tuple[int, ...]) -> Tensor:
    """adam.cu's table of chunks: number of the tensor, and where in it the chunk begins."""
    chunks = [
        torch.stack(torch.broadcast_tensors(torch.tensor(number), torch.arange(0, length, _ADAM_CHUNK)), 1)
        for number, length in enumerate(lengths)
    ]
    return _sent(torch.cat(chunks), device)


def _sent(table: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for it."""
    if device.type == "cpu":
        return table
    return table.pin_memory().to(device, non_blocking=True)


NO_DROPOUT = _Dropout()


def _as_c(value: Tensor | Dropout | _Dropout | float | None) -> object:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, _Dropout):
        return ctypes.byref(value)
    if isinstance(value, Dropout):
        seed, place = value.key
        # The tensors stay alive in `value`, which the caller holds; the kernel gets a copy of the structure.
        tokens = value.sample_of_token.data_ptr(), value.index_of_token.data_ptr()
        return ctypes.byref(_Dropout(seed, place, value.step, value.drop_threshold, value.scale, *tokens))
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)
