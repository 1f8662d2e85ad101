"""Files read the way `prepare` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deltalm_ds.text.inputs import Input, TextOptions, understand
from deltalm_ds.text.pieces import Piece, parts_of, read_pieces
from deltalm_ds.text.readers import DamagePolicy, parse


def pieces_of(inputs: Sequence[Input]) -> list[Piece]:
    return [piece for entry in inputs for part in parts_of(entry) for piece in read_pieces(part)]


def documents_of(inputs: Sequence[Input], damaged: DamagePolicy = "error") -> list[tuple[str, list[str]]]:
    """Source and lines of every document."""
    return [
        (documents.source, lines)
        for piece in pieces_of(inputs)
        for documents in parse(piece, damaged).documents
        for lines in documents
    ]


def read(
    *paths: Path, options: TextOptions | None = None, damaged: DamagePolicy = "error"
) -> list[tuple[str, list[str]]]:
    inputs, _ = understand(paths, options or TextOptions())
    return documents_of(inputs, damaged)
