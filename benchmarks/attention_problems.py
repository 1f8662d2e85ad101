"""Attention as `make gpu` checks and times it: packed by our kernel, padded by torch's backends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from problems import HEAD_WIDTH, Function, Problem, cumulative, random
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn

BACKENDS = {
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA math": SDPBackend.MATH,
}


def attention(
    device: torch.device,
    dtype: torch.dtype,
    name: str,
    lengths_q: Sequence[int],
    lengths_k: Sequence[int],
    num_heads: int,
    causal: bool = False,
    is_bound_by_memory: bool = False,
) -> Problem:
    """Attention of packed sequences; causal ones have the same lengths on both sides."""
    lengths = (cumulative(lengths_q, device), cumulative(lengths_k, device), max(lengths_q), max(lengths_k))
    tensors = tuple(
        random(device, dtype, sum(of_side), num_heads, HEAD_WIDTH)
        for of_side in (lengths_q, lengths_k, lengths_k)
    )

    def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return torch.ops.deltalm.attention(query, key, value, *lengths, causal)[0]

    def eager(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = zip(query.split(lengths_q), key.split(lengths_k), value.split(lengths_k), strict=True)
        return torch.cat([_attend(*part, causal) if len(part[1]) else part[0] * 0 for part in parts])

    pairs = sum(q * k for q, k in zip(lengths_q, lengths_k, strict=True)) * (0.5 if causal else 1.0)
    operations = 4.0 * pairs * HEAD_WIDTH * num_heads
    of_queries, of_keys = tensors[0].nbytes, tensors[1].nbytes
    traffic = 2.0 * of_queries + 2 * of_keys, 4.0 * of_queries + 4 * of_keys
    work = traffic if is_bound_by_memory else (operations, 2.5 * operations)
    return Problem(
        name=name,
        operation="attention",
        inputs=tensors,
        ours=ours,
        eager=eager,
        peers={
            **_padded_peers(device, dtype, lengths_q, lengths_k, num_heads, causal),
            **_variable_length_peer(tensors, lengths, causal),
        },
        forward_work=work[0],
        backward_work=work[1],
        is_bound_by_memory=is_bound_by_memory,
    )


def _attend(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """One sequence, [length, heads, HEAD_WIDTH], scores in fp32 at least."""
    heads = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    return F.scaled_dot_product_attention(*heads, is_causal=causal)[0].transpose(0, 1)


def _padded_peers(
    device: torch.device,
    dtype: torch.dtype,
    lengths_q: Sequence[int],
    lengths_k: Sequence[int],
    num_heads: int,
    causal: bool,
) -> dict[str, tuple[Function, tuple[Tensor, ...]]]:
    """Every backend of torch on padded rows, with a mask of keys where rows are ragged."""
    if device.type != "cuda":
        return {}
    rows = len(lengths_q)
    tensors = tuple(
        random(device, dtype, rows, num_heads, max(of_side), HEAD_WIDTH)
        for of_side in (lengths_q, lengths_k, lengths_k)
    )
    mask = None
    if min(lengths_k) < max(lengths_k) and not causal:
        column = torch.arange(max(lengths_k), device=device)
        mask = (column < torch.tensor(lengths_k, device=device)[:, None])[:, None, None, :]

    def by(backend: SDPBackend) -> Function:
        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)

        return attend

    return {name: (by(backend), tensors) for name, backend in BACKENDS.items()}


def _variable_length_peer(
    tensors: tuple[Tensor, ...], lengths: tuple[Tensor, Tensor, int, int], causal: bool
) -> dict[str, tuple[Function, tuple[Tensor, ...]]]:
    """torch's own attention over packed sequences."""
    if tensors[0].device.type != "cuda":
        return {}

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return varlen_attn(query, key, value, *lengths, window_size=(-1, 0 if causal else -1))

    return {"torch varlen": (attend, tensors)}
