"""Keys that equal and alike documents share: a hash of the text, and bands of its MinHash signature.

MinHash (Broder, "On the resemblance and containment of documents", 1997) over the sequences of five words,
single characters in scripts without spaces; banded as in locality-sensitive hashing (Leskovec et al., "Mining
of Massive Datasets", chapter 3), where two documents are alike if a band of theirs is equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import regex
from numpy.typing import NDArray

from deltalm_ds.text.cleaning import CleaningSettings
from deltalm_ds.text.readers import Documents

_NUM_PERMUTATIONS = 128
_WORDS_OF_A_SHINGLE = 5
_WORDS = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]|[\p{L}\p{M}\p{N}]+"
)


def duplicate_keys(
    documents: Documents, stays: NDArray[np.bool_], order: NDArray[np.int64], settings: CleaningSettings
) -> dict[str, NDArray]:
    """The keys of the documents that stay, [keys] each; none where duplicates are kept.

    duplicate_keys uint64 in ascending order, even for equal texts and odd for alike ones, so that the two
    never meet; duplicate_rows int32, which of the documents that stay each is of; duplicate_places int32,
    that document's number in the input, its `order`.
    """
    if settings.duplicates == "keep":
        return {}
    keys: list[int] = []
    num_keys: list[int] = []
    for lines, here in zip(documents, stays.tolist(), strict=True):
        if not here:
            continue
        text = "\n".join(lines)
        own = [_hash(text.encode("utf-8")) & ~1]
        if settings.duplicates == "near":
            own += [key | 1 for key in _bands(text, settings.near_duplicate_threshold)]
        keys += own
        num_keys.append(len(own))
    rows = np.repeat(np.arange(len(num_keys)), num_keys)
    by_key = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
    return {
        "duplicate_keys": np.array(keys, dtype=np.uint64)[by_key],
        "duplicate_rows": rows[by_key].astype(np.int32),
        "duplicate_places": order[stays][rows][by_key].astype(np.int32),
    }


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


@lru_cache(maxsize=1)
def _bands_and_rows(threshold: float) -> tuple[int, int]:
    from datasketch import MinHashLSH  # imports SciPy, which takes a second

    index = MinHashLSH(threshold=threshold, num_perm=_NUM_PERMUTATIONS)
    return index.b, index.r


def _bands(text: str, threshold: float) -> Iterator[int]:
    """The keys of a text's bands; none of a text that is too short to be like another."""
    from datasketch import MinHash

    words = _WORDS.findall(text.lower())
    count = len(words) - _WORDS_OF_A_SHINGLE + 1
    if count < 1:
        return
    shingles = {" ".join(words[start : start + _WORDS_OF_A_SHINGLE]).encode() for start in range(count)}
    signature = MinHash(num_perm=_NUM_PERMUTATIONS, scheme="affine32")
    signature.update_batch(sorted(shingles))
    num_bands, num_rows = _bands_and_rows(threshold)
    for band in range(num_bands):
        values = signature.hashvalues[band * num_rows : (band + 1) * num_rows]
        yield _hash(band.to_bytes(2, "little") + values.astype("<u4").tobytes())
