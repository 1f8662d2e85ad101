"""The feed-forward layer's activation (torch reference)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU(x + bias), the exact form with erf: x [tokens, features], bias [features]."""
    return F.gelu(x + bias)
