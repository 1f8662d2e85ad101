"""Items: the pieces of a source that become samples, found by arithmetic and binary search in its .idx.

Monolingual text is cut into windows of a fixed length; the last one is shorter. Sentence pairs are gathered
in rows: row r holds all pairs whose first token lies in [r · length, (r + 1) · length) of the stream.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.indexed import IndexedDataset, bin_path, idx_path
from deltalm_ds.errors import UserError

SMALLEST_PAIR = 5
"""Tokens of the shortest pair with text on both sides: `<s> a </s> b </s>`."""


class Windows(Protocol):
    """A source as items."""

    num_items: int

    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one item, 0 ≤ item < num_items."""

    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those items [items] have, without reading them."""


class MonolingualWindows:
    """Item k is the tokens [k · length, (k + 1) · length) of the stream, or what there is of them.

    Args:
        dataset: the source's tokens.
        length: tokens of a window.
        num_rows: rows of the vocabulary; reading an id that has none is a UserError.
    """

    def __init__(self, dataset: IndexedDataset, length: int, num_rows: int) -> None:
        self._dataset, self._length, self._num_rows = dataset, length, num_rows
        self.num_items = -(-dataset.num_tokens // length)

    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one window."""
        start = item * self._length
        return read_tokens(
            self._dataset, start, min(start + self._length, self._dataset.num_tokens), self._num_rows
        )

    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those windows [items] have."""
        return np.minimum(self._length, self._dataset.num_tokens - items * self._length)


class PairWindows:
    """Item r is row r: whole pairs, one after the other, `<s> source </s> target </s> <s> source …`.

    A row can be empty (a longer pair began before it). As all of its pairs but the last end within `length`
    tokens, only the last can lead beyond `capacity`; both of its sides are then cut in proportion to their
    lengths, each keeping a token and its `</s>`; where fewer than `SMALLEST_PAIR` tokens are left for it, it
    is left out.

    Args:
        dataset: the source's tokens; sequences 2i and 2i + 1 are the two sides of pair i.
        length: tokens of the stream in which a row's pairs begin.
        capacity: the most tokens of an item, at least `length` and `SMALLEST_PAIR`.
        num_rows: rows of the vocabulary; reading an id that has none is a UserError.
    """

    def __init__(self, dataset: IndexedDataset, length: int, capacity: int, num_rows: int) -> None:
        if dataset.num_sequences % 2:
            raise UserError(
                f"{idx_path(dataset.prefix)} has {dataset.num_sequences} sequences, an odd number, and so no "
                "pairs: prepare the data again"
            )
        if capacity < max(length, SMALLEST_PAIR):
            raise ValueError(f"a capacity of {capacity} tokens is too small for rows of {length}")
        self._dataset, self._length, self._capacity = dataset, length, capacity
        self._num_rows = num_rows
        self.num_items = -(-dataset.num_tokens // length)

    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one row."""
        first, end = self._sequences(item)
        start, stop = self._dataset.sequence_start(first), self._dataset.sequence_start(end)
        if stop - start <= self._capacity:
            return read_tokens(self._dataset, start, stop, self._num_rows)
        last = self._dataset.sequence_start(end - 2)
        whole = read_tokens(self._dataset, start, last, self._num_rows)
        return np.concatenate([whole, *self._cut_pair(end - 2, self._capacity - len(whole))])

    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those rows [items] have."""
        return np.array([self._num_tokens(int(item)) for item in items], dtype=np.int64)

    def _num_tokens(self, item: int) -> int:
        first, end = self._sequences(item)
        start, stop = self._dataset.sequence_start(first), self._dataset.sequence_start(end)
        if stop - start <= self._capacity:
            return stop - start
        whole = self._dataset.sequence_start(end - 2) - start
        return self._capacity if self._capacity - whole >= SMALLEST_PAIR else whole

    def _sequences(self, item: int) -> tuple[int, int]:
        """The sequences [first, end) of a row, both even: a pair begins with its even one."""
        first = self._dataset.first_sequence_from(item * self._length)
        end = self._dataset.first_sequence_from((item + 1) * self._length)
        return first + first % 2, end + end % 2

    def _cut_pair(self, sequence: int, room: int) -> list[NDArray[np.int32]]:
        """The pair that begins with `sequence`, longer than `room`, cut to `room` tokens or left out."""
        if room < SMALLEST_PAIR:
            return []
        # What can be cut: all but `<s>` and `</s>` of the source, all but `</s>` of the target.
        source_text, target_text = (int(n) for n in self._dataset.lengths[sequence : sequence + 2] - [2, 1])
        kept_text = room - 3
        kept_source = max(kept_text * source_text // (source_text + target_text), 1)
        sides = ((sequence, 1 + kept_source), (sequence + 1, kept_text - kept_source))
        pieces = []
        for side, kept in sides:
            start, stop = self._dataset.sequence_start(side), self._dataset.sequence_start(side + 1)
            pieces.append(read_tokens(self._dataset, start, start + kept, self._num_rows))
            pieces.append(read_tokens(self._dataset, stop - 1, stop, self._num_rows))
        return pieces


def read_tokens(dataset: IndexedDataset, start: int, stop: int, num_rows: int) -> NDArray[np.int32]:
    """The token ids [stop - start] at these offsets; UserError with file and offset of an id ≥ num_rows."""
    tokens = dataset.tokens(start, stop).astype(np.int32)
    invalid = tokens.view(np.uint32) >= num_rows  # a negative id is a large number in this view
    if invalid.any():
        offset = int(np.argmax(invalid))
        raise UserError(
            f"{bin_path(dataset.prefix)} holds token id {tokens[offset]} at token offset {start + offset}, "
            f"the vocabulary only {num_rows} rows: it is damaged or of another tokenizer; prepare it again"
        )
    return tokens
