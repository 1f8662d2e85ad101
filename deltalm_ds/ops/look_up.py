"""Rows of a table that is the output projection too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def look_up(tokens: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """table[tokens] [tokens, width], and the table itself for the output projection.

    tokens int64 [tokens], table [rows, width]. The gradient of the returned table takes up that of the rows
    in place; otherwise autograd would add two gradients of the table's size. Equal tokens are summed in fp32.
    """
    return _LookUp.apply(tokens, table)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens)
        ctx.table_like = table.shape, table.dtype, table.device
        ctx.set_materialize_grads(False)
        return table[tokens], table.view_as(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor | None, grad_table: Tensor | None) -> tuple[None, Tensor | None]:
        (tokens,) = ctx.saved_tensors
        if grad_rows is None:
            return None, grad_table
        if grad_table is None:
            shape, dtype, device = ctx.table_like
            grad_table = torch.zeros(shape, dtype=dtype, device=device)
        distinct, numbers = tokens.unique(return_inverse=True)
        precise = grad_rows.to(torch.promote_types(grad_rows.dtype, torch.float32))
        # Embedding's own backward adds equal tokens in a fixed order on every device.
        sums = torch.ops.aten.embedding_dense_backward(precise, numbers, len(distinct), -1, False)
        grad_table[distinct] = (grad_table[distinct] + sums).to(grad_table.dtype)
        return None, grad_table
