"""The C functions as functions of arrays, for callers that know that `library()` is there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.native.library import library

_WORDS_BEYOND = 3  # they come in fours
TOKENS_BEYOND = 8
"""Room that must be behind tokens, as what is copied is rounded up."""


def numbered_keys(family: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`permutation.numbered_key` of arrays that broadcast."""
    table = np.empty((3, *np.broadcast(family, number).shape), dtype=np.uint64)
    table[0], table[1] = family, number
    _library().numbered_keys(_address(table), table[0].size)
    return table[2]


def permute(
    index: NDArray[np.int64], size: NDArray[np.int64], key: NDArray[np.uint64]
) -> NDArray[np.int64] | None:
    """`permutation.keyed_permutation` of arrays that broadcast; None if one is out of range."""
    table = np.empty((4, *np.broadcast(index, size, key).shape), dtype=np.int64)
    table[0], table[1], table[2] = index, size, key.view(np.int64)
    return table[3] if _library().permute(_address(table), table[0].size) else None


def read_items(
    sources: NDArray[np.int64], items: NDArray[np.int64], num_tokens: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    """Items end to end.

    Args:
        sources: struct source of items.c for every item, [members, items].
        items: their numbers in their sources, [items].
        num_tokens: at least as many as they have.

    Returns: tokens, with room behind them; the items' lengths [items]; and how many items could be read
        before one that could not.
    """
    table = np.empty((len(sources) + 2, len(items)), dtype=np.int64)
    table[:-2], table[-2] = sources, items
    tokens = np.empty(num_tokens + TOKENS_BEYOND, dtype=np.int32)
    return tokens, table[-1], int(_library().read_items(_address(table), len(items), _address(tokens)))


def join(
    tokens: NDArray[np.int32],
    places: NDArray[np.int64],
    start: int,
    end: int,
    num_source: int,
    num_target: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """`Examples.joined` of these tokens and places, where there are so many tokens on either side."""
    source = np.empty(num_source, dtype=np.int64)
    decoder_input, labels = (np.empty(num_target, dtype=np.int64) for _ in range(2))
    _library().join(
        *(_address(tokens), _address(places), places.shape[1], start, end),
        *(_address(source), _address(decoder_input), _address(labels)),
    )
    return source, decoder_input, labels


def least(words: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """Where the `size` least words stand, ascending; of equal ones the first."""
    places, scratch = np.empty(len(words), dtype=np.int64), np.empty_like(words)
    _library().least(words.ctypes.data, len(words), size, _address(places), _address(scratch))
    return places[:size]


def corrupt(
    tokens: NDArray[np.int32],
    texts: Sequence[NDArray[np.integer]],
    stream: int,
    first_sentinel_id: int,
    is_t5: bool,
    num_source: int,
    num_target: int,
) -> NDArray[np.int32]:
    """Sources [num_source] of texts, and behind them their targets [num_target], which corruption.c explains.

    Args:
        tokens: with the texts in it and TOKENS_BEYOND more at its end.
        texts: of each text where it begins, its tokens, masked tokens and spans, and the number of its masks
            within `stream`, [texts] each.
    """
    table = np.empty((5, len(texts[0])), dtype=np.int64)
    for row, column in zip(table, texts, strict=True):
        row[:] = column
    words, places = np.empty((2, 2 * int(table[1].max()) + _WORDS_BEYOND), dtype=np.uint64)
    sides = np.empty(num_source + num_target + 2 * TOKENS_BEYOND, dtype=np.int32)
    source, target = sides[: num_source + TOKENS_BEYOND], sides[num_source + TOKENS_BEYOND :]
    _library().corrupt(
        *(_address(tokens), _address(table), table.shape[1], stream, first_sentinel_id, is_t5),
        *(_address(words), _address(places), _address(source), _address(target)),
    )
    return sides


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None
    return found


class _Memory(ctypes.Structure):
    """Of no size, so that an empty array has an address too."""


def _address(array: NDArray) -> int:
    """Of a writable array; a quarter of the time that array.ctypes.data takes."""
    return ctypes.addressof(_Memory.from_buffer(array.data))
