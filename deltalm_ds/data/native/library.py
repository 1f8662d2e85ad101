"""The C files of this folder, compiled and loaded on first use.

Where there is no C compiler, the NumPy versions beside the callers run instead and give the same integers.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

from deltalm_ds import native_build

_FLAGS = ("-O3", "-march=native", "-std=gnu11")
_ADDRESS, _NUMBER, _WORD = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64
_SIGNATURES = {
    "numbered_keys": (None, [_ADDRESS, _NUMBER]),
    "permute": (_NUMBER, [_ADDRESS, _NUMBER]),
    "read_items": (_NUMBER, [_ADDRESS, _NUMBER, _ADDRESS]),
    "join": (None, [*[_ADDRESS] * 2, *[_NUMBER] * 3, *[_ADDRESS] * 3]),
    "least": (None, [_ADDRESS, _NUMBER, _NUMBER, _ADDRESS, _ADDRESS]),
    "corrupt": (None, [_ADDRESS, _ADDRESS, _NUMBER, _WORD, _NUMBER, _NUMBER, *[_ADDRESS] * 4]),
}
"""As in data.h."""


@lru_cache(None)
def library() -> ctypes.CDLL | None:
    """The compiled functions, or None (said once in the log) on a machine that cannot compile them."""
    instead = "samples are made in NumPy, more slowly"
    found = native_build.load(Path(__file__).parent, _FLAGS, "data", instead)
    if found is not None:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    return found
