"""Where the documents of a set go: its ranges of shuffle keys, and what each piece has in each of them.

A set's documents are put in order range by range, a range being small enough for memory. The tables here say
how many documents and tokens every piece has in every range, so that each range knows its place in the final
files before any of them is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from deltalm_ds.files import write_bytes_atomically
from deltalm_ds.preparing.duplicates import duplicates_of
from deltalm_ds.preparing.encoding import STATISTICS
from deltalm_ds.preparing.sources import DocumentSet

RANGE_BYTES = 128 << 20
"""About as many bytes of tokens are put in order at once."""
PIECES_AT_ONCE = 256
"""Pieces whose tables are made together."""

COUNTS = ("documents", "tokens", *STATISTICS)
"""The columns of a table."""


def num_ranges(documents: DocumentSet, token_bytes: int) -> int:
    """In how many ranges of keys a set is put in order: a power of two."""
    total = sum(piece.num_tokens for piece in documents.pieces) * token_bytes
    return 1 << max(-(-total // RANGE_BYTES) - 1, 0).bit_length()


def make_tables(
    documents: DocumentSet,
    first: int,
    count: int,
    duplicates: Sequence[Path],
    first_in_source: int,
    path: Path,
) -> None:
    """Write the tables of the pieces from `first` on, PIECES_AT_ONCE of them, for `count` ranges.

    They are int64: bounds [pieces, ranges + 1], the rows where every range begins; totals [ranges, COUNTS],
    what the pieces together keep; dropped [dropped], the rows left out, piece after piece and ascending in
    each, and dropped_ends [pieces + 1], where each piece's begin; num_duplicates [2], how many of them are
    equal to another document and how many only alike. `duplicates` are the files of the source's duplicates,
    in which the set's pieces are numbered from `first_in_source` on.
    """
    pieces = documents.pieces[first : first + PIECES_AT_ONCE]
    number = first_in_source + first
    found = duplicates_of(duplicates, number, number + len(pieces))
    limits = [index * (1 << 64) // count for index in range(1, count)]
    bounds, dropped = [], []
    totals = np.zeros((count, len(COUNTS)), dtype=np.int64)
    for piece, rows in zip(pieces, found, strict=True):
        with safe_open(piece.path, framework="np") as file:
            keys, starts = file.get_tensor("keys"), file.get_tensor("starts")
            statistics = file.get_tensor("statistics")
        stays = np.ones(len(keys), dtype=np.int64)
        stays[list(rows)] = 0
        columns = np.column_stack([np.ones_like(stays), np.diff(starts), statistics]) * stays[:, None]
        sums = np.concatenate([np.zeros((1, len(COUNTS)), np.int64), np.cumsum(columns, axis=0)])
        inner = np.searchsorted(keys, np.array(limits, dtype=np.uint64))
        edges = np.concatenate([[0], inner, [len(keys)]])
        bounds.append(edges)
        totals += np.diff(sums[edges], axis=0)
        dropped.append(np.array(sorted(rows), dtype=np.int64))
    near = sum(is_near for rows in found for is_near in rows.values())
    tables = {
        "bounds": np.stack(bounds),
        "totals": totals,
        "dropped": np.concatenate(dropped),
        "dropped_ends": np.cumsum([0, *map(len, dropped)]),
        "num_duplicates": np.array([sum(map(len, found)) - near, near]),
    }
    write_bytes_atomically(path, save(tables))
