"""The largest numbers of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalm_ds.ops.native import kernels


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest numbers [rows, count] of x [rows, n] and their places int64, largest first.

    At most n of them. Which of equal numbers come is open, and the place of -inf may be any.
    """
    count = min(count, x.shape[1])
    if x.dtype == torch.float32 and count and kernels.support(x):
        return kernels.largest(x, count)
    values, places = x.topk(count, dim=1)
    return values, places
