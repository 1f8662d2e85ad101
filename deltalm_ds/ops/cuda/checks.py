"""What the kernels take: each argument is checked before any launch.

A ValueError names the function, the argument, what it must be and what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deltalm_ds.ops.philox import Dropout

HEAD_WIDTH = 64
"""The width of attention heads that the kernels are made for."""
MAX_NORM_WIDTH = 1024
"""The most features of a LayerNorm."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What all kernels but attention's take."""
MAX_SEQUENCES = 65535
"""The most sequences of one call to attention: a dimension of CUDA's grid."""
HALVES = (torch.bfloat16, torch.float16)
"""What attention's take."""
ALIGNMENT = 16
"""Bytes of one load."""


class Check:
    """Says in one line which argument of a function is wrong, and what it must be."""

    def __init__(self, function: str, device: torch.device) -> None:
        """`device`: where every tensor must be."""
        self._function = function
        self._device = device

    def fail(self, name: str, must: str, found: object) -> None:
        """Raise ValueError."""
        raise ValueError(f"{self._function}: {name} must be {must}, not {found}")

    def given(self, name: str, tensor: Tensor | None) -> None:
        """Refuse None."""
        if tensor is None:
            self.fail(name, "a tensor", None)

    def tensor(
        self, name: str, tensor: Tensor | None, dtypes: Sequence[torch.dtype], shape: Sequence[int | None]
    ) -> None:
        """Refuse all but a contiguous, aligned tensor of one of these dtypes and this shape (None: any)."""
        if tensor is None:
            return self.fail(name, "a tensor", None)
        if tensor.device != self._device:
            self.fail(name, f"on {self._device}", f"on {tensor.device}")
        if tensor.dtype not in dtypes:
            self.fail(name, " or ".join(map(str, dtypes)), tensor.dtype)
        sizes = tuple(tensor.shape)
        if len(sizes) != len(shape) or any(
            want not in (None, size) for want, size in zip(shape, sizes, strict=True)
        ):
            self.fail(name, f"of shape {[('any' if want is None else want) for want in shape]}", list(sizes))
        if not tensor.is_contiguous():
            self.fail(name, "contiguous", f"of strides {tensor.stride()}")
        if tensor.data_ptr() % ALIGNMENT:
            self.fail(name, f"aligned to {ALIGNMENT} bytes", f"at {tensor.data_ptr():#x}")
        return None

    def like(self, name: str, tensor: Tensor | None, other: Tensor) -> None:
        """Refuse all but the dtype and shape of another."""
        self.tensor(name, tensor, (other.dtype,), tuple(other.shape))

    def multiple_of_8(self, name: str, size: int) -> None:
        """Refuse sizes that loads of 16 bytes do not fit."""
        if size % 8:
            self.fail(name, "a multiple of 8", size)

    def lengths(self, side: str, cumulative_lengths: Tensor, num_tokens: int, longest: int) -> None:
        """Refuse lengths that do not add up to the tokens, or pass the longest."""
        num_sequences = len(cumulative_lengths) - 1
        if not longest <= num_tokens <= num_sequences * longest:
            self.fail(
                f"max_length_{side}",
                f"the longest of {num_sequences} sequences that have {num_tokens} tokens",
                longest,
            )
        if cumulative_lengths.device.type != "cpu":
            return
        lengths = cumulative_lengths.diff()
        ends = cumulative_lengths[0], cumulative_lengths[-1]
        if ends != (0, num_tokens) or (lengths < 0).any() or (lengths > longest).any():
            self.fail(
                f"cumulative_lengths_{side}",
                f"rising from 0 to {num_tokens} by at most {longest}",
                cumulative_lengths.tolist(),
            )

    def dropout(self, dropout: Dropout | None, num_tokens: int) -> None:
        """Refuse counters of other tokens."""
        if dropout is not None:
            for name in ("sample_of_token", "index_of_token"):
                self.tensor(f"dropout.{name}", getattr(dropout, name), (torch.int64,), (num_tokens,))


def check_attention(
    check: Check,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cumulative_lengths: tuple[Tensor, Tensor],
    max_lengths: tuple[int, int],
    causal: bool,
) -> None:
    """Refuse what attention cannot take; lengths on a GPU are not waited for, only their bounds compared."""
    check.tensor("query", query, HALVES, (None, None, HEAD_WIDTH))
    check.tensor("key", key, (query.dtype,), (None, query.shape[1], HEAD_WIDTH))
    check.like("value", value, key)
    sides = zip("qk", (query, key), cumulative_lengths, max_lengths, strict=True)
    for side, tensor, cumulative, longest in sides:
        name = f"cumulative_lengths_{side}"
        check.tensor(name, cumulative, (torch.int32,), (None,))
        if not 1 <= len(cumulative) <= MAX_SEQUENCES + 1:
            check.fail(name, f"of 1 to {MAX_SEQUENCES + 1} numbers", f"of {len(cumulative)}")
        check.lengths(side, cumulative, len(tensor), longest)
    check.like("cumulative_lengths_k", cumulative_lengths[1], cumulative_lengths[0])
    if causal and (len(query) != len(key) or max_lengths[0] != max_lengths[1]):
        check.fail("key", f"as long as query ({len(query)}), being causal", len(key))


def suits_norm(x: Tensor) -> bool:
    """Whether the kernels of dropout, residual and LayerNorm are made for x [tokens, features]."""
    return x.dtype in DTYPES and x.shape[1] % 8 == 0 and x.shape[1] <= MAX_NORM_WIDTH


def check_norm(
    check: Check,
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    dropout: Dropout | None,
) -> None:
    check.tensor("x", x, DTYPES, (None, None))
    check_width(check, x)
    check.like("residual", residual, x)
    check.tensor("bias", bias, (x.dtype,), (x.shape[1],))
    if gamma is not None:
        check.like("gamma", gamma, bias)
        check.like("beta", beta, bias)
    check.dropout(dropout, len(x))


def check_width(check: Check, x: Tensor) -> None:
    check.multiple_of_8("features", x.shape[1])
    if x.shape[1] > MAX_NORM_WIDTH:
        check.fail("features", f"at most {MAX_NORM_WIDTH}", x.shape[1])


def check_gelu(check: Check, x: Tensor, bias: Tensor) -> None:
    check.tensor("x", x, DTYPES, (None, None))
    check.multiple_of_8("features", x.shape[1])
    check.tensor("bias", bias, (x.dtype,), (x.shape[1],))


class AdamTensors(NamedTuple):
    """One parameter's tensors of any one shape, in the order of adam.cu's table."""

    weight: Tensor
    """fp32; updated."""
    first_moment: Tensor
    """fp32; updated."""
    second_moment: Tensor
    """fp32; updated."""
    grad: Tensor
    rounded_weight: Tensor | None
    """Gets `weight` as rounded to its own dtype."""


def check_adam(check: Check, tensors: AdamTensors, first: AdamTensors) -> None:
    """Refuse what one launch for `first` and others cannot take."""
    shape = tuple(tensors.weight.shape)
    for name, tensor in zip(tensors._fields[:3], tensors[:3], strict=True):
        check.tensor(name, tensor, (torch.float32,), shape)
    check.tensor("grad", tensors.grad, (first.grad.dtype,), shape)
    check.tensor("grad", tensors.grad, DTYPES, shape)
    if (tensors.rounded_weight is None) != (first.rounded_weight is None):
        check.fail("rounded_weight", "given for all tensors or for none", "for some")
    if tensors.rounded_weight is not None and first.rounded_weight is not None:
        check.tensor("rounded_weight", tensors.rounded_weight, (first.rounded_weight.dtype,), shape)
        check.tensor("rounded_weight", tensors.rounded_weight, HALVES, shape)
