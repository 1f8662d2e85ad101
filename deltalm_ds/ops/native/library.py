"""The C files of this folder, compiled and loaded on first use.

Where there is no C compiler, the torch versions of the operations run instead, with the same dropout bits.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

from deltalm_ds import native_build

# -fno-trapping-math changes no value; without it gcc makes no AVX2 vectors of a choice between two numbers.
_FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-std=gnu11", "-fopenmp")


@lru_cache(None)
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (said once in the log) on a machine that cannot compile them."""
    instead = "dropout and loss on the CPU run in torch, more slowly"
    return native_build.load(Path(__file__).parent, _FLAGS, "kernels", instead)
