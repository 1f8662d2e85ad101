"""Items: the pieces of a source that become samples, found by arithmetic and binary search in its .idx.

Monolingual text is cut into windows of a fixed length; the last one is shorter. Sentence pairs are gathered
in rows: row r holds all pairs whose first token lies in [r · length, (r + 1) · length) of the stream.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.indexed import IndexedDataset, bin_path, idx_path
from deltalm_ds.errors import UserError

SMALLEST_PAIR = 5
"""Tokens of the shortest pair with text on both sides: `<s> a </s> b </s>`."""


class Items(Protocol):
    """A source as items."""

    num_items: int

    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one item, 0 ≤ item < num_items."""

    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those items [items] have, without reading them."""


class Windows(ABC):
    """Items that can be read many at once, by `deltalm_ds.data.items.ItemReader`."""

    num_items: int
    longest: int
    """The most tokens of an item."""

    @abstractmethod
    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one item, 0 ≤ item < num_items."""

    @abstractmethod
    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those items [items] have, without reading them."""

    @abstractmethod
    def members(self) -> tuple[int, ...]:
        """The source as struct source of native/items.c, as long as this lives."""


class MonolingualWindows(Windows):
    """Item k is the tokens [k · length, (k + 1) · length) of the stream, or what there is of them.

    Args:
        dataset: the source's tokens.
        length: tokens of a window.
        num_rows: rows of the vocabulary; reading an id that has none is a UserError.
    """

    def __init__(self, dataset: IndexedDataset, length: int, num_rows: int) -> None:
        self._dataset, self._length, self._num_rows = dataset, length, num_rows
        self.num_items, self.longest = -(-dataset.num_tokens // length), length

    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one window."""
        start = item * self._length
        return read_tokens(
            self._dataset, start, min(start + self._length, self._dataset.num_tokens), self._num_rows
        )

    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those windows [items] have."""
        return np.minimum(self._length, self._dataset.num_tokens - items * self._length)

    def members(self) -> tuple[int, ...]:
        """As `Windows` says."""
        return _members(self._dataset, self._length, 0, self._num_rows)


class PairWindows(Windows):
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
        self.num_items, self.longest = -(-dataset.num_tokens // length), capacity

    def tokens(self, item: int) -> NDArray[np.int32]:
        """The token ids [tokens] of one row."""
        end, start, last, stop = self._row(item)
        if stop - start <= self._capacity:
            return read_tokens(self._dataset, start, stop, self._num_rows)
        whole = read_tokens(self._dataset, start, last, self._num_rows)
        return np.concatenate([whole, *self._cut_pair(end - 2, self._capacity - len(whole))])

    def num_tokens(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens those rows [items] have."""
        return np.array([self._num_tokens(int(item)) for item in items], dtype=np.int64)

    def members(self) -> tuple[int, ...]:
        """As `Windows` says."""
        return _members(self._dataset, self._length, self._capacity, self._num_rows)

    def _num_tokens(self, item: int) -> int:
        _, start, last, stop = self._row(item)
        if stop - start <= self._capacity:
            return stop - start
        return self._capacity if self._capacity - (last - start) >= SMALLEST_PAIR else last - start

    def _row(self, item: int) -> tuple[int, int, int, int]:
        """The sequence after a row's pairs; the offsets where its first and its last pair begin and end.

        UserError where the index, of which only the entries read here were looked at, cannot be.
        """
        dataset = self._dataset
        first = dataset.first_sequence_from(item * self._length)
        end = dataset.first_sequence_from((item + 1) * self._length)
        first, end = first + first % 2, end + end % 2  # a pair begins with its even sequence
        start, stop = dataset.sequence_start(first), dataset.sequence_start(end)
        last = dataset.sequence_start(end - 2) if first < end else start
        if first > end or not start <= last <= min(start + self._length, stop):
            raise dataset.damaged(f"sequences {first} to {end} do not follow each other")
        return end, start, last, stop

    def _cut_pair(self, sequence: int, room: int) -> list[NDArray[np.int32]]:
        """The pair that begins with `sequence`, longer than `room`, cut to `room` tokens or left out."""
        if room < SMALLEST_PAIR:
            return []
        start, middle, stop = (self._dataset.sequence_start(sequence + i) for i in range(3))
        # What can be cut: all but `<s>` and `</s>` of the source, all but `</s>` of the target.
        source_text, target_text = middle - start - 2, stop - middle - 1
        if source_text < 1 or target_text < 1:
            raise self._dataset.damaged(f"sequences {sequence} and {sequence + 1} are no pair")
        kept_text = room - 3
        kept_source = max(kept_text * source_text // (source_text + target_text), 1)
        kept_target = kept_text - kept_source
        pieces = (
            *((start, start + 1 + kept_source), (middle - 1, middle)),
            *((middle, middle + kept_target), (stop - 1, stop)),
        )
        return [read_tokens(self._dataset, *bounds, self._num_rows) for bounds in pieces]


def _members(dataset: IndexedDataset, length: int, capacity: int, num_rows: int) -> tuple[int, ...]:
    return (
        *(dataset.tokens_address, dataset.dtype_code, dataset.num_tokens, num_rows, length, capacity),
        *(dataset.pointers_address, dataset.num_sequences, dataset.dtype.itemsize),
    )


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
