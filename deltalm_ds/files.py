"""Files that are either whole or absent, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

_READ_BYTES = 1 << 20

CHUNK_BYTES = 64 << 20
"""Large files are hashed in chunks of this size, so that many processes can do it and damage has a place."""


@contextlib.contextmanager
def atomic_writer(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends without an exception.

    It is written as `path` + ".PID.tmp" in the same folder, synced, and renamed over `path`; after an
    exception the .tmp is removed and whatever was at `path` is untouched.
    """
    path = Path(path)
    # Named by the process: one that its killed parent left behind may still be writing the same file.
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
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


def put_folder(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`, on the same file system, replacing the folder that is there.

    Until then `path` is as it was. What a killed run left halfway is mended by the next call.
    """
    path = path.resolve()  # a link stays a link
    replaced = path.with_name(f".{path.name}.old.tmp")
    if path.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        path.rename(replaced)
    try:
        new.rename(path)
    except BaseException:
        if replaced.exists():
            replaced.rename(path)
        raise
    fsync_directory(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def fsync_directory(path: str | Path) -> None:
    """Make the renames and removals in the folder `path` survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def num_chunks(num_bytes: int) -> int:
    """How many chunks a file of that size has."""
    return -(-num_bytes // CHUNK_BYTES)


def chunk_hash(path: str | Path, number: int, progress: Callable[[int], object] | None = None) -> str:
    """SHA-256 in hexadecimal of a file's bytes [number · CHUNK_BYTES, (number + 1) · CHUNK_BYTES).

    `progress` is told the bytes of every piece as it is read.
    """
    digest, left = hashlib.sha256(), CHUNK_BYTES
    with Path(path).open("rb") as file:
        file.seek(number * CHUNK_BYTES)
        while piece := file.read(min(_READ_BYTES, left)):
            digest.update(piece)
            left -= len(piece)
            if progress is not None:
                progress(len(piece))
    return digest.hexdigest()


def tree_hash(hashes: Sequence[str]) -> str:
    """SHA-256 in hexadecimal of the hashes of a file's chunks, a line each: one for the whole file."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def file_tree_hash(path: str | Path) -> str:
    """The `tree_hash` of a file."""
    size = Path(path).stat().st_size
    return tree_hash([chunk_hash(path, number) for number in range(num_chunks(size))])
