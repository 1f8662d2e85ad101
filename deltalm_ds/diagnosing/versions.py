"""What must be equal on all ranks: versions of libraries, and our own code byte for byte."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

import torch
import torch.distributed as dist

import deltalm_ds
from deltalm_ds.files import sha256_of

_HASH_CHARACTERS = 12


def versions() -> dict[str, str]:
    """Version by name; "none" for what a build of torch is without. Our package by the hash of its files.

    Among them how many GPUs torch sees: where it sees none and others do, ranks would wait for each other in
    different libraries.
    """
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepspeed": metadata.version("deepspeed"),
        "CUDA": torch.version.cuda or "none",
        "NCCL": ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else "none",
        "GPUs": str(torch.cuda.device_count()),
        "deltalm_ds": content_hash(Path(deltalm_ds.__file__).parent)[:_HASH_CHARACTERS],
    }


def content_hash(folder: Path) -> str:
    """SHA-256 in hexadecimal over names and contents of all files below a folder, but for Python's caches."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
