"""What `make gpu` checks and times: each operation by our kernel and by torch's own operations.

A Problem's eager function is written once, in torch, for any dtype: in fp64 it is the truth, in 16 bits the
peer whose error and time are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from deltalm_ds.ops.cuda.choice import Operation
from deltalm_ds.ops.cuda.operations import dropout_arguments
from deltalm_ds.ops.dropout import keep_mask
from deltalm_ds.ops.philox import Dropout

Function = Callable[..., Tensor]

DROPOUT = 0.1
EPSILON = 1e-5
HEAD_WIDTH = 64
SMOOTHING = 0.1


@dataclass(frozen=True)
class Problem:
    """One operation on given inputs."""

    name: str
    operation: Operation
    inputs: tuple[Tensor, ...]
    """What gradients are taken of, all of 16 bits."""
    ours: Function
    eager: Function
    """The same by torch's operations, in the dtype of its arguments."""
    peers: dict[str, tuple[Function, tuple[Tensor, ...]]] = field(default_factory=dict)
    """Other ways, for timing alone, with the inputs as they want them."""
    forward_work: float = 0.0
    """Bytes or operations of the forward pass, at least."""
    backward_work: float = 0.0
    is_bound_by_memory: bool = True
    """Whether work is in bytes."""
    includes_backward: bool = False
    """Whether the forward function takes the gradients at once."""


def random(device: torch.device, dtype: torch.dtype, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers of a deviation, from torch's generator."""
    return (scale * torch.randn(shape, device=device)).to(dtype)


def cumulative(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where packed sequences begin and end, int32 [sequences + 1]."""
    return F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(device, torch.int32)


def made_dropout(num_tokens: int, device: torch.device) -> Dropout:
    """A site's dropout over tokens of samples of 128."""
    token = torch.arange(num_tokens, device=device)
    counters = {"sample_of_token": token // 128 + 2**33, "index_of_token": token % 128}
    return Dropout(probability=DROPOUT, seed=5, step=7, layer=3, site=1, **counters)


def add_norm(
    device: torch.device, dtype: torch.dtype, num_tokens: int, width: int, with_dropout: bool = True
) -> Problem:
    """Dropout, bias, residual and LayerNorm."""
    dropout = made_dropout(num_tokens, device) if with_dropout else None
    kept = None if dropout is None else keep_mask(dropout, width)
    scale = 1.0 if dropout is None else dropout.scale
    arguments = dropout_arguments(dropout)

    def ours(*tensors: Tensor) -> Tensor:
        return torch.ops.deltalm.add_norm(*tensors, EPSILON, *arguments)[0]

    def eager(x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        x = x + bias
        total = residual + (x if kept is None else x * kept * scale)
        return F.layer_norm(total, (width,), gamma, beta, EPSILON)

    def with_torchs_dropout(x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return F.layer_norm(residual + F.dropout(x + bias, DROPOUT), (width,), gamma, beta, EPSILON)

    tensors = (
        random(device, dtype, num_tokens, width),
        random(device, dtype, width, scale=0.1),
        random(device, dtype, num_tokens, width),
        1 + random(device, dtype, width, scale=0.1),
        random(device, dtype, width, scale=0.1),
    )
    of_one_tensor = tensors[0].nbytes
    return Problem(
        name=f"dropout(x + bias) + residual + LayerNorm, {num_tokens:,} × {width}",
        operation="add_norm",
        inputs=tensors,
        ours=ours,
        eager=eager,
        peers={"torch eager": (with_torchs_dropout, tensors)},
        forward_work=4 * of_one_tensor,  # x, residual; sum, out
        backward_work=4 * of_one_tensor,  # gradient, sum; gradients of x and residual
    )


def gelu(device: torch.device, dtype: torch.dtype, num_tokens: int, width: int) -> Problem:
    """bias + GELU."""
    tensors = (random(device, dtype, num_tokens, width), random(device, dtype, width, scale=0.1))

    def eager(x: Tensor, bias: Tensor) -> Tensor:
        return F.gelu(x + bias)

    return Problem(
        name=f"bias + GELU, {num_tokens:,} × {width}",
        operation="gelu",
        inputs=tensors,
        ours=torch.ops.deltalm.gelu,
        eager=eager,
        peers={"torch eager": (eager, tensors)},
        forward_work=2 * tensors[0].nbytes,
        backward_work=3 * tensors[0].nbytes,
    )


def gelu_linear(
    device: torch.device, dtype: torch.dtype, num_tokens: int, width: int, out_width: int
) -> Problem:
    """bias + GELU and the linear layer behind it, which the model runs."""
    tensors = (
        random(device, dtype, num_tokens, width),
        random(device, dtype, width, scale=0.1),
        random(device, dtype, out_width, width, scale=width**-0.5),
    )

    def eager(x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
        return F.linear(F.gelu(x + bias), weight)

    return Problem(
        name=f"bias + GELU + linear, {num_tokens:,} × {width} × {out_width}",
        operation="gelu",
        inputs=tensors,
        ours=torch.ops.deltalm.gelu_linear,
        eager=eager,
    )


def linear_cross_entropy(
    device: torch.device, dtype: torch.dtype, num_tokens: int, width: int, num_rows: int
) -> Problem:
    """Output projection and loss; both sides end with the gradients of hidden states and table."""
    tensors = (
        random(device, dtype, num_tokens, width),
        random(device, dtype, num_rows, width, scale=width**-0.5),
    )
    labels = torch.randint(num_rows, (num_tokens,), device=device)
    labels[:: max(2, num_tokens // 8)] = -100

    def ours(hidden: Tensor, weight: Tensor) -> Tensor:
        needed = (hidden.requires_grad, weight.requires_grad, False)
        settings = (SMOOTHING, "uniform", *needed)
        return torch.ops.deltalm.linear_cross_entropy(hidden, weight, None, labels, *settings)[0]

    def eager(hidden: Tensor, weight: Tensor) -> Tensor:
        logits = hidden @ weight.t()
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=SMOOTHING)

    return Problem(
        name=f"linear + cross-entropy, {num_tokens:,} × {width} × {num_rows:,}",
        operation="cross_entropy",
        inputs=tensors,
        ours=ours,
        eager=eager,
        peers={"torch eager": (eager, tensors), **_liger(tensors, labels)},
        forward_work=6.0 * num_tokens * width * num_rows,
        is_bound_by_memory=False,
        includes_backward=True,
    )


def _liger(tensors: tuple[Tensor, ...], labels: Tensor) -> dict[str, tuple[Function, tuple[Tensor, ...]]]:
    """Liger's fused loss, where it is installed."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        return {}
    loss = LigerFusedLinearCrossEntropyLoss(label_smoothing=SMOOTHING, reduction="sum")
    return {"Liger": (lambda hidden, weight: loss(weight, hidden, labels), tensors)}
