"""Peak memory of a step, on the CPU from the process's resident set and on a GPU from torch's allocator."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import torch

_KIBIBYTE = 1024


class PeakMemory:
    """Bytes in use at the highest point of a step, beyond what was in use when this was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._give_back()
        self.baseline = torch.cuda.memory_allocated() if device.type == "cuda" else resident("VmRSS")

    def start(self) -> None:
        """Give freed memory back and reset the high-water mark."""
        self._give_back()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def bytes_since_start(self) -> int:
        """The peak since then, above the baseline."""
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else resident("VmHWM")
        return peak - self.baseline

    def _give_back(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        else:
            ctypes.CDLL(None).malloc_trim(0)


def resident(field: str) -> int:
    """VmRSS, what this process has in memory, or VmHWM, the most it ever had, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * _KIBIBYTE
