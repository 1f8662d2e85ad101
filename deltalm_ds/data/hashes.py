"""FILE.sha256 beside a file of data: the hashes of its chunks, a line each, by which damage has a place.

The manifest has only the hash of these hashes, so that it stays small for any corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deltalm_ds.files import CHUNK_BYTES, tree_hash, write_text_atomically


def hashes_path(file: Path) -> Path:
    """Where the hashes of a file's chunks are."""
    return file.with_name(file.name + ".sha256")


def write_hashes(file: Path, hashes: Sequence[str]) -> None:
    """Write them beside the file."""
    write_text_atomically(hashes_path(file), "\n".join(hashes))


def damaged_place(file: Path, found: Sequence[str], expected: str) -> str:
    """between byte X and Y: the first chunk whose hash among `found` is not the one beside the file.

    Nothing where those beside it are missing, or have not the tree hash `expected` themselves.
    """
    try:
        hashes = hashes_path(file).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return ""
    if tree_hash(hashes) != expected or len(hashes) != len(found):
        return ""
    number = next(number for number, pair in enumerate(zip(hashes, found, strict=True)) if len(set(pair)) > 1)
    return f" between byte {number * CHUNK_BYTES:,} and {(number + 1) * CHUNK_BYTES:,}"
