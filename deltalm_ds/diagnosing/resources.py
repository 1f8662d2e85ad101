"""What the system leaves to a process of a node: memory, shared memory, open files."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import TypedDict

_MEMORY, _SHARED_MEMORY = Path("/proc/meminfo"), Path("/dev/shm")


class Resources(TypedDict):
    """Bytes and counts."""

    memory_bytes: int
    """What new processes can have without swapping: the kernel's MemAvailable."""
    shared_memory_bytes: int
    """Free in /dev/shm; 0 without one."""
    open_files: int
    """Limit of open files that holds without asking for more."""


def resources() -> Resources:
    """Look."""
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", _MEMORY.read_text(), flags=re.M)
    assert available is not None  # since Linux 3.14
    return Resources(
        memory_bytes=int(available[1]) * 1024,
        shared_memory_bytes=free_bytes(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else 0,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def free_bytes(folder: Path) -> int:
    """Free space of the file system of `folder`, for users without privileges."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize
