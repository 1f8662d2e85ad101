"""Keyed permutations of range(size) computed one element at a time, with no table.

Construction. With a the least even number ≥ √size and b = ⌈size / a⌉, an index x < a·b is written as
(left, right) = (x mod a, x div a). Twenty-four rounds of a generalised Feistel network (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains", 2002) add, in turn, F(right) to left modulo a and F(left) to right
modulo b, where F is the SplitMix64 finaliser (Steele et al., "Fast Splittable Pseudorandom Number
Generators", 2014) of its input plus a round key. Every round can be undone, so the whole is a bijection of
range(a·b). The few results outside range(size), fewer than √size + 2 of them, are sent through again until
they fall inside (cycle walking), which leaves a bijection of range(size).

An even a makes odd permutations possible (adding modulo an odd number is an even permutation), and
twenty-four rounds are what it takes for all orders of a handful of items to be equally likely; large sizes
need fewer.

Everything is integer arithmetic modulo 2**64 and one correctly rounded square root: the same on every
machine and for every version of NumPy.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltalm_ds.data.native import functions as native
from deltalm_ds.data.native.library import library

LARGEST_SIZE = 1 << 62
NUM_ROUNDS = 24

_GOLDEN = 0x9E3779B97F4A7C15
_ROUND_STEPS = [np.uint64((number + 1) * _GOLDEN % 2**64) for number in range(NUM_ROUNDS)]


def stream_key(*parts: int | str) -> int:
    """A 64-bit key of a list of names and numbers: BLAKE2b of their JSON form, so ("a", "b") ≠ ("ab",)."""
    text = json.dumps(parts, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def numbered_key(key: ArrayLike, number: ArrayLike) -> NDArray[np.uint64]:
    """The key of member `number` of the family `key` (an epoch, a block), element by element.

    Args: two broadcastable arrays of non-negative integers below 2**64. Returns their common shape.
    """
    combine = _numbered_keys if library() is None else native.numbered_keys
    return np.asarray(combine(_words(key), _words(number)))


def keyed_permutation(index: ArrayLike, size: ArrayLike, key: ArrayLike) -> NDArray[np.int64]:
    """Where `index` goes under the permutation of range(size) that `key` names.

    All three may be numbers or arrays that broadcast against each other, so that one call serves items of
    different sources and epochs.

    Args:
        index: integers, 0 ≤ index < size.
        size: integers in 1..2**62.
        key: 64-bit integers.

    Returns: int64 of the common shape, 0 ≤ result < size.
    Raises: ValueError if an index or a size is out of range.
    """
    permute = _permute if library() is None else native.permute
    images = permute(np.asarray(index, dtype=np.int64), np.asarray(size, dtype=np.int64), _words(key))
    if images is None:
        raise ValueError("the size of a permutation must lie in 1..2**62 and an index in range(size)")
    return images


def _numbered_keys(key: NDArray[np.uint64], number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):  # numbers, unlike arrays, warn when they wrap around
        return _mix(key + _mix(number + _ROUND_STEPS[0]))


def _permute(
    index: NDArray[np.int64], size: NDArray[np.int64], key: NDArray[np.uint64]
) -> NDArray[np.int64] | None:
    """`keyed_permutation` of arrays that broadcast; None if an index or a size is out of range."""
    if np.any((size < 1) | (size > LARGEST_SIZE) | (index < 0) | (index >= size)):
        return None
    index, size, key = np.broadcast_arrays(index, size, key)
    keys, sizes = key.ravel(), size.ravel().astype(np.uint64)
    left_size = 2 * np.ceil(np.sqrt(sizes.astype(np.float64)) / 2).astype(np.uint64)
    right_size = (sizes + left_size - np.uint64(1)) // left_size
    result = _feistel(index.ravel().astype(np.uint64), left_size, right_size, keys)
    outside = np.flatnonzero(result >= sizes)
    while outside.size:
        result[outside] = _feistel(result[outside], left_size[outside], right_size[outside], keys[outside])
        outside = outside[result[outside] >= sizes[outside]]
    return result.astype(np.int64).reshape(index.shape)


def _feistel(
    index: NDArray[np.uint64],
    left_size: NDArray[np.uint64],
    right_size: NDArray[np.uint64],
    key: NDArray[np.uint64],
) -> NDArray[np.uint64]:
    """The bijection of range(left_size · right_size), all arguments of one shape [elements]."""
    right, left = np.divmod(index, left_size)
    for number, step in enumerate(_ROUND_STEPS):
        round_key = _mix(key + step)
        if number % 2 == 0:
            left = (left + _mix(right + round_key) % left_size) % left_size
        else:
            right = (right + _mix(left + round_key) % right_size) % right_size
    return right * left_size + left


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every input bit moves every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _words(values: ArrayLike) -> NDArray[np.uint64]:
    return np.asarray(values, dtype=np.uint64)
