"""Which documents of a source are left out as duplicates: found range by range of their keys, on disk.

Every stored piece has its documents' keys in ascending order. A range of keys is looked at by one process:
it reads that range of all pieces and marks every document that shares a key with an earlier one, earlier
being by input order, held-out inputs first. So memory is bounded and the result is the same however the
ranges are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save

from deltalm_ds.files import write_bytes_atomically
from deltalm_ds.preparing.sources import StoredPiece

KEYS_AT_ONCE = 1 << 22
"""About as many keys are looked at together."""
_KEYS_OF_A_DOCUMENT = 16
"""About as many as a document has where alike ones are looked for."""

_EMPTY = {
    "keys": np.empty(0, np.uint64),
    "pieces": np.empty(0, np.int32),
    "places": np.empty(0, np.int32),
    "rows": np.empty(0, np.int32),
}


def num_ranges(pieces: Sequence[StoredPiece], near: bool) -> int:
    """In how many ranges of keys the duplicates of some pieces are looked for: a power of two."""
    num_keys = sum(piece.num_documents for piece in pieces) * (_KEYS_OF_A_DOCUMENT if near else 1)
    return 1 << max(-(-num_keys // KEYS_AT_ONCE) - 1, 0).bit_length()


def find_duplicates(pieces: Sequence[StoredPiece], number: int, count: int, path: Path) -> None:
    """Write the duplicates within range `number` of `count` to `path`.

    The arrays are [duplicates], by piece: piece int32, its number among `pieces`; row int32, the document's
    place in its file; near uint8, 1 where it is only alike.
    """
    columns: dict[str, list[NDArray]] = {name: [] for name in _EMPTY}
    for index, piece in enumerate(pieces):
        with safe_open(piece.path, framework="np") as file:
            keys = file.get_slice("duplicate_keys")
            size = keys.get_shape()[0]
            first = _first_from(keys, size, number * (1 << 64) // count)
            end = _first_from(keys, size, (number + 1) * (1 << 64) // count)
            if first == end:
                continue
            columns["keys"].append(keys[first:end])
            columns["places"].append(file.get_slice("duplicate_places")[first:end])
            columns["rows"].append(file.get_slice("duplicate_rows")[first:end])
            columns["pieces"].append(np.full(end - first, index, dtype=np.int32))
    keys, in_piece, places, rows = (np.concatenate([*columns[name], _EMPTY[name]]) for name in columns)
    order = np.lexsort((places, in_piece, keys))
    repeats = order[1:][keys[order][1:] == keys[order][:-1]]
    repeats = repeats[np.lexsort((rows[repeats], in_piece[repeats]))]
    found = {
        "piece": in_piece[repeats],
        "row": rows[repeats],
        "near": (keys[repeats] & np.uint64(1)).astype(np.uint8),
    }
    write_bytes_atomically(path, save(found))


def _first_from(keys: Any, size: int, key: int) -> int:
    """The first place whose key is at least `key`, by binary search in a file."""
    first, end = 0, size
    while first < end:
        middle = (first + end) // 2
        if int(keys[middle : middle + 1][0]) < key:
            first = middle + 1
        else:
            end = middle
    return first


def duplicates_of(paths: Sequence[Path], first: int, end: int) -> list[dict[int, bool]]:
    """For each of the pieces first..end - 1: row of a duplicate → whether it is only alike."""
    found: list[dict[int, bool]] = [{} for _ in range(first, end)]
    for path in paths:
        arrays = load_file(path)
        begin, stop = np.searchsorted(arrays["piece"], [first, end])
        columns = (arrays[name][begin:stop].tolist() for name in ("piece", "row", "near"))
        for piece, row, near in zip(*columns, strict=True):
            rows = found[piece - first]
            rows[row] = bool(near) and rows.get(row, True)
    return found
