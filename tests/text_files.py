"""Files of text for tests, and what is read from them."""

from __future__ import annotations

import gzip
import lzma
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import zstandard

from deltalm_ds.text.inputs import Input, TextOptions, understand
from deltalm_ds.text.pieces import Piece, parts_of, read_pieces
from deltalm_ds.text.readers import DamagePolicy, parse

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, 1),
    ".xz": lambda content: lzma.compress(content, preset=0),
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, compressed as its ending says."""
    encoded = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(encoded))
    return path


def write_zip(
    path: Path, members: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    """Write a .zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def inputs_of(*paths: Path, options: TextOptions | None = None) -> list[Input]:
    """What files are taken for."""
    return understand(paths, options or TextOptions())[0]


def pieces_of(inputs: Iterable[Input]) -> list[Piece]:
    """All pieces of some inputs, in order."""
    return [piece for entry in inputs for part in parts_of(entry) for piece in read_pieces(part)]


def read(inputs: Iterable[Input], damaged: DamagePolicy = "error") -> list[tuple[str, list[str]]]:
    """Source and lines of all documents, in order."""
    return [
        (documents.source, lines)
        for piece in pieces_of(inputs)
        for documents in parse(piece, damaged).documents
        for lines in documents
    ]


def left_out(inputs: Iterable[Input], damaged: DamagePolicy = "error") -> Counter[str]:
    """How much of some inputs is left out, by reason."""
    counts: Counter[str] = Counter()
    for piece in pieces_of(inputs):
        counts.update(parse(piece, damaged).left_out)
    return counts
