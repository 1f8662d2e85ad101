"""Find the compiled kernels for this machine's GPUs, or compile them."""

from __future__ import annotations

import ctypes
import logging
import subprocess
from functools import lru_cache
from pathlib import Path

import torch

from deltalm_ds.errors import UserError
from deltalm_ds.ops.cuda.build import SOURCES, cached_build, find_nvcc

PACKAGED = Path(__file__).parent / "libdeltalm_kernels.so"
"""Where an installed package has them."""

_LEAST_CAPABILITY = (8, 0)

_log = logging.getLogger(__name__)


@lru_cache(None)
def library() -> ctypes.CDLL | None:
    """The kernels, or None (said once in the log) where they cannot run or be compiled.

    In a checkout they are compiled on first use, by one process of the machine while others wait, and kept by
    content in the user's cache.
    """
    if not torch.cuda.is_available():
        return None
    try:
        return ctypes.CDLL(str(_path()))
    except (OSError, RuntimeError, UserError, subprocess.SubprocessError) as error:
        _log.warning("no GPU kernels, operations run in torch, more slowly: %s", error)
        return None


def _path() -> Path:
    capability = torch.cuda.get_device_capability()
    if capability < _LEAST_CAPABILITY:
        raise UserError(f"this GPU has compute capability {capability}, they need {_LEAST_CAPABILITY}")
    nvcc = find_nvcc()
    if nvcc is not None and any(SOURCES.glob("*.cu")):  # a checkout
        return cached_build(nvcc)[0]
    if not PACKAGED.exists():
        raise UserError("they are not in this installation, and there is no nvcc to compile them")
    return PACKAGED
