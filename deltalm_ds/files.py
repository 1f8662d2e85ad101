"""Files that are either whole or absent, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_READ_BYTES = 1 << 20


@contextlib.contextmanager
def atomic_writer(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends without an exception.

    It is written as `path` + ".tmp" in the same folder, synced, and renamed over `path`; after an exception
    the .tmp is removed and whatever was at `path` is untouched.
    """
    path = Path(path)
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_bytes_atomically(path: str | Path, content: bytes) -> None:
    """Replace the file at `path` by `content`: readers see the old bytes or the new ones, nothing between."""
    with atomic_writer(path) as file:
        file.write(content)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8, as `write_bytes_atomically` does."""
    write_bytes_atomically(path, text.encode("utf-8"))


@contextlib.contextmanager
def folder_aside(path: str | Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` when the block ends without an exception.

    It lies beside `path` under a hidden name; one that a killed run left there is removed first. What was
    at `path` stays until then and is replaced. After an exception `path` is as it was.
    """
    path = Path(path).resolve()  # a link stays a link
    aside, replaced = (path.with_name(f".{path.name}.{kind}.tmp") for kind in ("new", "old"))
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        shutil.rmtree(replaced, ignore_errors=True)
        _exchange(path, aside, replaced)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    fsync_directory(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _exchange(path: Path, new: Path, old: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise


def fsync_directory(path: str | Path) -> None:
    """Make the renames and removals in the folder `path` survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: str | Path, progress: Callable[[int], object] | None = None) -> str:
    """SHA-256 of a file's bytes in hexadecimal; `progress` is told the bytes of every piece as it is read."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            if progress is not None:
                progress(len(piece))
    return digest.hexdigest()
