"""The sources of `kernels/` compiled for the CPU, as they are or with a fault planted."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deltalm_ds.ops.cuda.kernels import NO_DROPOUT, Kernels

SOURCES = Path(__file__).resolve().parents[2] / "kernels"
FLAGS = ("-std=c++17", "-O2", "-fno-strict-aliasing", "-fPIC", "-DDELTALM_ON_CPU")


class KernelsOnCPU(Kernels):
    """The kernels' functions on tensors of the CPU, threads in ascending or in random order."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        super().__init__(library, "cpu")
        self._library = library

    no_dropout = NO_DROPOUT

    def shuffle_threads(self, seed: int) -> None:
        """0: ascending order."""
        self._library.deltalm_shuffle_threads(ctypes.c_uint32(seed))

    def begin_at_block(self, number: int) -> None:
        """Leave the blocks before this one out."""
        self._library.deltalm_begin_at_block(ctypes.c_int64(number))

    def most_shared_bytes(self) -> int:
        """Dynamic shared memory of the launch that asked for most of it since the last call."""
        self._library.deltalm_most_shared_bytes.restype = ctypes.c_int64
        return self._library.deltalm_most_shared_bytes()


def compile_kernels(folder: Path, faults: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """A shared library in `folder` of all sources; `faults` replace a text of a file, once, by another."""
    faults = faults or {}
    with tempfile.TemporaryDirectory() as work:
        copied = Path(work) / "kernels"
        shutil.copytree(SOURCES, copied)
        for name, (text, fault) in faults.items():
            source = (copied / name).read_text()
            assert text in source, f"{name} has no {text!r}: change the planted fault with the kernel"
            (copied / name).write_text(source.replace(text, fault, 1))
        names = [path.name for path in sorted(copied.glob("*.cu"))]
        if faults:
            names = [name for name in names if name in faults]
        objects = []
        running = []
        for name in names:
            objects.append(f"{name}.o")
            command = ["g++", *FLAGS, "-x", "c++", "-c", name, "-o", objects[-1]]
            running.append(subprocess.Popen(command, cwd=copied))
        assert [process.wait() for process in running] == [0] * len(running)
        library = folder / "kernels.so"
        command = ["g++", *FLAGS, "-shared", *objects, "on_cpu/controls.cpp", "-o", str(library), "-lpthread"]
        subprocess.run(command, cwd=copied, check=True)
    return library
