"""Temporaries that operations lend each other."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[tuple[str, torch.dtype], Tensor] = {}


_buffers = _Buffers()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor that holds until the next call with the same name.

    On a CPU it is the same memory each time: fresh pages cost more than the work on them, and glibc leaves
    holes where large temporaries come and go between tensors that stay. Elsewhere torch has its allocator.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    size = math.prod(shape)
    buffer = _buffers.by_name.get((name, dtype))
    if buffer is None or len(buffer) < size:
        buffer = _buffers.by_name[name, dtype] = torch.empty(size, dtype=dtype)
    return buffer[:size].view(shape)
