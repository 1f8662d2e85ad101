"""What closes a sub-layer: bias, dropout, residual, LayerNorm (torch reference)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from deltalm_ds.ops.philox import Dropout, keep_mask


def dropout_add_layer_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    epsilon: float,
    dropout: Dropout | None,
) -> Tensor:
    """LayerNorm(residual + dropout(x + bias)), statistics in fp32.

    x, residual [tokens, features]; bias, gamma, beta [features]. Returns [tokens, features].
    """
    return layer_norm(dropout_add(x, bias, residual, dropout), gamma, beta, epsilon)


def dropout_add(x: Tensor, bias: Tensor, residual: Tensor, dropout: Dropout | None) -> Tensor:
    """residual + dropout(x + bias), the end of a sub-layer that normalises first; shapes as above."""
    if dropout is None:
        return residual + (x + bias)
    kept = (x + bias) * keep_mask(dropout, x.shape[1])
    return residual.add(kept, alpha=dropout.scale)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
    """LayerNorm over the features of x [tokens, features], statistics in fp32."""
    return F.layer_norm(x, (x.shape[1],), gamma, beta, epsilon)


def apply_dropout(x: Tensor, dropout: Dropout | None) -> Tensor:
    """Dropout alone: x [tokens, features] to the same shape."""
    if dropout is None:
        return x
    return (x * keep_mask(dropout, x.shape[1])) * dropout.scale
