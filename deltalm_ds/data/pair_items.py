"""Single pairs as items, cut to what a sample can hold; rows of several pairs are in windows.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.indexed import IndexedDataset, idx_path
from deltalm_ds.data.windows import read_tokens
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary

KeptLengths = Callable[[int, int], tuple[int, int]]
"""From the tokens of `<s> source </s>` and of `target </s>` to how many of each a sample keeps."""


class SinglePairs:
    """Item k is pair k, `<s> source </s> target </s>`; so no pair is ever left out.

    A longer pair than a sample can hold is cut at the ends of both texts, each keeping its `</s>`.

    Args:
        dataset: the source's tokens; sequences 2i and 2i + 1 are the two sides of pair i.
        kept_lengths: how much of each side is kept, at most all of it and at least what is no text.
        num_rows: rows of the vocabulary; reading an id that has none is a UserError.
    """

    def __init__(self, dataset: IndexedDataset, kept_lengths: KeptLengths, num_rows: int) -> None:
        if dataset.num_sequences % 2:
            raise UserError(
                f"{idx_path(dataset.prefix)} has {dataset.num_sequences} sequences, an odd number, and so no "
                "pairs: prepare the data again"
            )
        self._dataset, self._kept_lengths, self._num_rows = dataset, kept_lengths, num_rows
        self.num_items = dataset.num_sequences // 2

    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one pair."""
        sides = self._sides(item)
        kept = self._kept_lengths(*(stop - start for start, stop in sides))
        parts = []
        for (start, stop), length in zip(sides, kept, strict=True):
            parts.append(read_tokens(self._dataset, start, start + length - 1, self._num_rows))
            parts.append(read_tokens(self._dataset, stop - 1, stop, self._num_rows))
        tokens = np.concatenate(parts)
        if np.flatnonzero(tokens == Vocabulary.EOS)[-2:].tolist() != [kept[0] - 1, len(tokens) - 1]:
            raise self._dataset.damaged(f"pair {item} is not two sides that end with </s>")
        return tokens

    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those pairs [items] have, after the cut."""
        counts = [
            sum(self._kept_lengths(*(stop - start for start, stop in self._sides(int(item)))))
            for item in items
        ]
        return np.array(counts, dtype=np.int64)

    def _sides(self, item: int) -> list[tuple[int, int]]:
        """The offsets of a pair's two sides; UserError where the index cannot be right."""
        source, target = (self._dataset.sequence_bounds(2 * item + side) for side in range(2))
        if source[1] - source[0] < 2 or target[1] - target[0] < 1:
            raise self._dataset.damaged(f"sequences {2 * item} and {2 * item + 1} are no pair")
        return [source, target]


def cut_each(source: int, target: int, *, max_source: int, max_target: int) -> tuple[int, int]:
    """Each side cut to its own limit, in tokens."""
    return min(source, max_source), min(target, max_target)


def cut_together(source: int, target: int, *, capacity: int) -> tuple[int, int]:
    """Both sides cut in proportion to their texts, so that together they have `capacity` tokens at most.

    `capacity` is at least 5: `<s> a </s> b </s>`.
    """
    if source + target <= capacity:
        return source, target
    source_text, target_text = source - 2, target - 1
    kept_text = capacity - 3
    kept_source = max(kept_text * source_text // (source_text + target_text), min(source_text, 1))
    return kept_source + 2, kept_text - kept_source + 1


def split_pair(tokens: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`<s> source </s>` and `target </s>` of one pair's tokens.

    A source may have `</s>` between two parts of it, as question generation has; a target has none.
    """
    border = int(np.flatnonzero(tokens == Vocabulary.EOS)[-2]) + 1
    return tokens[:border], tokens[border:]
