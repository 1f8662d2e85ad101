"""Compile the C files of this folder once per user and machine, and load them.

The library has a plain C ABI and knows nothing of torch, so it outlives torch's versions. Where there is no
C compiler, the torch versions of the operations run instead, with the same dropout bits.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from deltalm_ds.cache import cache_folder

FOLDER = Path(__file__).parent
# -fno-trapping-math changes no value; without it gcc makes no AVX2 vectors of a choice between two numbers.
FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-std=gnu11", "-shared", "-fPIC", "-fopenmp")

_log = logging.getLogger(__name__)


@lru_cache(None)
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (said once in the log) on a machine that cannot compile them."""
    compiler = shutil.which("cc")
    if compiler is None:
        _log.warning("no C compiler `cc`: dropout and loss on the CPU run in torch, more slowly")
        return None
    try:
        if not any(FOLDER.glob("*.c")):  # `cc` would make a library of nothing
            raise FileNotFoundError(f"no C files in {FOLDER}: install the package again")
        path = cache_folder() / f"kernels-{_fingerprint(compiler)}.so"
        if not path.exists():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # RuntimeError: no home folder
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        _log.warning("CPU kernels not built, dropout and loss run in torch, more slowly: %s", reason)
        return None


def _fingerprint(compiler: str) -> str:
    """Changes with the sources, the flags, the compiler and the processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    parts = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
    parts += [" ".join(FLAGS).encode(), version, _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> str:
    """Name and instruction sets: -march=native compiles for exactly these."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.machine() + platform.processor()
    first = information.read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in first if line.startswith(("model name", "flags", "Features")))


def _compile(compiler: str, path: Path) -> None:
    """Write the library aside and rename it: other processes may be doing the same."""
    sources = [str(source) for source in sorted(FOLDER.glob("*.c"))]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as folder:
        built = Path(folder) / path.name
        command = [compiler, *FLAGS, *sources, "-o", str(built), "-lm"]
        subprocess.run(command, capture_output=True, text=True, check=True)
        built.replace(path)
    _log.info("compiled the CPU kernels into %s", path)
