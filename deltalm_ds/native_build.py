"""C files compiled once per user and machine, and loaded.

The libraries have a plain C ABI and know nothing of torch or Python, so they outlive their versions. What
they compute is also there in torch or NumPy, which runs where there is no C compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from deltalm_ds.cache import cache_folder

_log = logging.getLogger(__name__)


def load(folder: Path, flags: tuple[str, ...], name: str, instead: str) -> ctypes.CDLL | None:
    """The C files of `folder` as a library; None, said in the log, on a machine that cannot compile them.

    Args:
        folder: holds the .c files and their headers.
        flags: the compiler's.
        name: begins the name of the library's file.
        instead: what happens without the library, for the log.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        _log.warning("no C compiler `cc`: %s", instead)
        return None
    try:
        if not any(folder.glob("*.c")):  # `cc` would make a library of nothing
            raise FileNotFoundError(f"no C files in {folder}: install the package again")
        path = cache_folder() / f"{name}-{fingerprint(compiler, folder, flags)}.so"
        if not path.exists():
            compile_library(compiler, folder, flags, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # RuntimeError: no home folder
        reason = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        _log.warning("C files not compiled, %s: %s", instead, reason)
        return None


def fingerprint(compiler: str, folder: Path, flags: tuple[str, ...]) -> str:
    """Changes with the sources, the flags, the compiler and the processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    parts = [path.read_bytes() for path in sorted(folder.glob("*.[ch]"))]
    parts += [" ".join(flags).encode(), version, _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def compile_library(compiler: str, folder: Path, flags: tuple[str, ...], path: Path) -> None:
    """Write the library aside and rename it: other processes may be doing the same."""
    sources = [str(source) for source in sorted(folder.glob("*.c"))]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="building-") as aside:
        built = Path(aside) / path.name
        command = [compiler, *flags, "-shared", "-fPIC", *sources, "-o", str(built), "-lm"]
        subprocess.run(command, capture_output=True, text=True, check=True)
        built.replace(path)
    _log.info("compiled %s", path)


def _processor() -> str:
    """Name and instruction sets: -march=native compiles for exactly these."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.machine() + platform.processor()
    first = information.read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in first if line.startswith(("model name", "flags", "Features")))
