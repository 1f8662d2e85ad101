"""Compile the CUDA kernels into one library: `python -m deltalm_ds.ops.cuda.build OUTPUT.so`.

Only nvcc is needed, on the PATH or in CUDA_HOME; no GPU, and nothing of torch. One library holds machine code
for every architecture of ARCHITECTURES, and PTX that later ones compile for themselves. What was compiled is
kept by content in the user's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deltalm_ds.cache import cache_folder
from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically

SOURCES = Path(__file__).resolve().parents[3] / "kernels"
"""The sources, in a checkout; an installed package has the compiled library instead."""

ARCHITECTURES = ("80", "90a", "100", "120")
"""A100, Hopper, data-centre Blackwell, desktop Blackwell."""

_PTX = "80"
_FLAGS = ("-std=c++17", "-O3", "-Xcompiler", "-fPIC", "--diag-suppress", "20013")


def find_nvcc() -> Path | None:
    """The compiler in CUDA_HOME or on the PATH."""
    home = os.environ.get("CUDA_HOME")
    if home is not None and (Path(home) / "bin/nvcc").is_file():
        return Path(home) / "bin/nvcc"
    found = shutil.which("nvcc")
    return None if found is None else Path(found)


def fingerprint(nvcc: Path) -> str:
    """Changes with the sources, the flags and the compiler."""
    version = subprocess.run([nvcc, "--version"], capture_output=True, check=True).stdout
    files = sorted([*SOURCES.glob("*.cu"), *SOURCES.glob("*.h")])
    parts = [version, repr((ARCHITECTURES, _PTX, _FLAGS)).encode()]
    parts += [part for file in files for part in (file.name.encode(), file.read_bytes())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def cached_build(nvcc: Path) -> tuple[Path, str]:
    """The library in the user's cache and ptxas's report; compiled if need be, by one process at a time.

    Raises UserError if it cannot be compiled, OSError or RuntimeError if there is no place for it.
    """
    path = cache_folder() / f"gpu-kernels-{fingerprint(nvcc)}.so"
    report = path.with_suffix(".txt")
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            print(f"compiling the GPU kernels into {path}, a minute's work", file=sys.stderr)
            write_text_atomically(report, build(path.with_suffix(".unfinished"), nvcc))
            path.with_suffix(".unfinished").rename(path)
    return path, report.read_text(encoding="utf-8")


def build(output: Path, nvcc: Path, architectures: Sequence[str] = ARCHITECTURES) -> str:
    """Compile all sources into the shared library `output`, written aside and renamed; gives ptxas's report.

    Files are compiled side by side, one for each core. Raises UserError with the compiler's words.
    """
    targets = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in architectures]
    targets.append(f"-gencode=arch=compute_{_PTX},code=compute_{_PTX}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix="building-") as work:
        # The longest work first, so that no core waits for it at the end.
        sources = sorted(SOURCES.glob("*.cu"), key=lambda source: -source.stat().st_size)
        objects = [Path(work) / f"{source.stem}.o" for source in sources]

        def compile_one(source: Path, target: Path) -> str:
            return _run([nvcc, *_FLAGS, *targets, "-Xptxas=-v", "-c", source, "-o", target])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            reports = list(pool.map(compile_one, sources, objects))
        library = Path(work) / output.name
        _run([nvcc, "-shared", "-cudart", "static", *targets, *objects, "-o", library])
        library.replace(output)
    return "".join(reports)


def _run(command: Sequence[str | Path]) -> str:
    """What the command says on stderr."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        found = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr.strip()]
        raise UserError(f"{command[0]} failed on the kernels: {found[0]}")
    return done.stderr


def main(output: Path) -> None:
    """Put the library at `output`."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise UserError(
            "no nvcc on the PATH or in CUDA_HOME: install the CUDA toolkit to compile the kernels"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cached_build(nvcc)[0], output)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (UserError, OSError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error))
