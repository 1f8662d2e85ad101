"""Peak memory of a step, on the CPU from the process's resident set and on a GPU from torch's allocator."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import torch

_KIBIBYTE = 1024


class PeakMemory:
    """Bytes in use at the highest point since `start`, beyond what was in use at `start`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.baseline = 0

    def start(self) -> None:
        """Give freed memory back, note what is left, and reset the high-water mark."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.baseline = torch.cuda.memory_allocated()
            return
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self.baseline = _resident("VmRSS")

    def bytes_since_start(self) -> int:
        """The peak above the baseline."""
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else _resident("VmHWM")
        return peak - self.baseline


def _resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * _KIBIBYTE
