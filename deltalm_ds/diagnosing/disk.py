"""How fast a disk takes and gives back a file, and whether it gives back the same."""

from __future__ import annotations

import os
import random
import tempfile
import time
from pathlib import Path
from typing import TypedDict

from deltalm_ds.diagnosing.resources import free_bytes

_BLOCK_BYTES = 4_000_000


class Disk(TypedDict):
    """Of the file system that a folder is on."""

    write_bytes_per_second: float
    """Until fsync has returned."""
    read_bytes_per_second: float
    """After the kernel was asked to forget the file; a server may still know it."""
    free_bytes: int
    """Before writing."""


def measure_disk(folder: Path, num_bytes: int) -> Disk:
    """Write a file of about `num_bytes` into `folder`, sync it, read it back.

    If there is no such folder yet, its nearest parent serves. The file has no name, so that nothing is left
    behind however the process ends. OSError for what the system refuses; RuntimeError if other bytes come
    back.
    """
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    try:
        return _measure(folder, num_bytes)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error  # the file's name says nothing


def _measure(folder: Path, num_bytes: int) -> Disk:
    free = free_bytes(folder)
    num_blocks = max(1, num_bytes // _BLOCK_BYTES)
    # Random, for a file system may compress; each block its own, for it may store equal ones once.
    block = bytearray(random.Random(os.getpid()).randbytes(_BLOCK_BYTES))
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        for number in range(num_blocks):
            block[:8] = number.to_bytes(8, "little")
            _write_all(file.fileno(), block)
        os.fsync(file.fileno())
        seconds_writing = time.perf_counter() - start
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        seconds_reading = 0.0
        for number in range(num_blocks):
            start = time.perf_counter()
            read = _read_all(file.fileno(), _BLOCK_BYTES)
            seconds_reading += time.perf_counter() - start
            block[:8] = number.to_bytes(8, "little")
            if read != block:
                raise RuntimeError(f"{folder} gave back other bytes than were written")
    return Disk(
        write_bytes_per_second=num_blocks * _BLOCK_BYTES / seconds_writing,
        read_bytes_per_second=num_blocks * _BLOCK_BYTES / seconds_reading,
        free_bytes=free,
    )


def _write_all(descriptor: int, block: bytearray) -> None:
    """Write all of it: a system call may take a part."""
    left = memoryview(block)
    while left:
        left = left[os.write(descriptor, left) :]


def _read_all(descriptor: int, num_bytes: int) -> bytes:
    """Read `num_bytes`, fewer only at the end of the file."""
    pieces: list[bytes] = []
    while num_bytes and (piece := os.read(descriptor, num_bytes)):
        pieces.append(piece)
        num_bytes -= len(piece)
    return b"".join(pieces)
