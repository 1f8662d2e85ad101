"""Where an export goes: never over anything, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from deltalm_ds.errors import UserError
from deltalm_ds.files import fsync_directory, put_folder

_SPARE_BYTES = 64 << 20  # tokenizer, configuration, code


def check_target(target: Path) -> None:
    """UserError where something is at `target`."""
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already; remove it or name another target")


def check_space(target: Path, num_bytes: int) -> None:
    """UserError where the disk of `target` has no room for weights of so many bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    needed = num_bytes + _SPARE_BYTES
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise UserError(
            f"no space for {target}: needs {needed:,} bytes, has {free:,}; free space or name another place"
        )


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill: renamed to `target` when the block ends without an exception, else removed."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in aside.iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_directory(aside)
        check_target(target)  # somebody else may have been faster
        put_folder(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
