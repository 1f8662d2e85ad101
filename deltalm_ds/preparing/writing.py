"""The final files of a set: its documents by shuffle key, the first ones to validation, range by range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from deltalm_ds.data.indexed_files import IndexedFiles
from deltalm_ds.data.manifest import Split
from deltalm_ds.preparing.layout import COUNTS, PIECES_AT_ONCE
from deltalm_ds.preparing.sources import DocumentSet, StoredPiece

_DOCUMENTS, _TOKENS = COUNTS.index("documents"), COUNTS.index("tokens")


@dataclass(frozen=True, kw_only=True)
class ValidationSplit:
    """How many of a source's documents are held out, where none of its inputs are by name."""

    share: float
    """Share of the documents, at least one of a source with two or more; 0 holds none out."""
    max_documents: int
    """At most so many of a source."""

    def count(self, num_documents: int) -> int:
        """How many of `num_documents` to hold out."""
        if self.share == 0 or num_documents < 2:
            return 0
        return min(max(round(self.share * num_documents), 1), self.max_documents, num_documents - 1)


@dataclass(frozen=True)
class SetLayout:
    """A set whose tables are made."""

    documents: DocumentSet
    """The set."""
    tables: tuple[Path, ...]
    """The files of its tables, PIECES_AT_ONCE pieces each."""
    dtype: np.dtype
    """Of its tokens."""

    def totals(self) -> NDArray[np.int64]:
        """What its ranges hold, [ranges, COUNTS]."""
        totals = 0
        for path in self.tables:
            with safe_open(path, framework="np") as file:
                totals = totals + file.get_tensor("totals")
        return np.asarray(totals)

    def range_pieces(self, number: int) -> list[_RangeOfPiece]:
        """The rows that every piece has in one range."""
        found = []
        for group, path in enumerate(self.tables):
            with safe_open(path, framework="np") as file:
                bounds = file.get_slice("bounds")[:, number : number + 2]
                dropped, ends = file.get_tensor("dropped"), file.get_tensor("dropped_ends")
            for index, (first, end) in enumerate(bounds.tolist()):
                rows = dropped[ends[index] : ends[index + 1]]
                left_out = rows[(rows >= first) & (rows < end)] - first
                piece = self.documents.pieces[group * PIECES_AT_ONCE + index]
                found.append(_RangeOfPiece(piece, first, end, left_out))
        return found


@dataclass(frozen=True)
class _RangeOfPiece:
    """The rows first..end - 1 of a piece, those left out numbered from the first."""

    piece: StoredPiece
    first: int
    end: int
    left_out: NDArray[np.int64]


@dataclass(frozen=True)
class SplitPlan:
    """A dataset to be written: consecutive documents of a set in its order."""

    split: Split
    files: IndexedFiles
    first_document: int
    """The first of them."""
    first_token: int
    """Where its tokens begin among the set's."""


@dataclass(frozen=True)
class _Ordered:
    """The documents of a range in their order."""

    lengths: NDArray[np.int32]  # [documents, sequences]
    tokens: list[memoryview]  # the bytes of every document's tokens; none where they were not asked for


def _ordered(layout: SetLayout, number: int, with_tokens: bool = True) -> _Ordered:
    """The documents of a range that stay, by key; of equal keys by input order."""
    keys, lengths = [], []
    tokens: list[memoryview] = []
    for part in layout.range_pieces(number):
        if part.first == part.end:
            continue
        with safe_open(part.piece.path, framework="np") as file:
            stays = np.ones(part.end - part.first, dtype=bool)
            stays[part.left_out] = False
            keys.append(file.get_slice("keys")[part.first : part.end][stays])
            lengths.append(file.get_slice("lengths")[part.first : part.end][stays])
            if with_tokens:
                starts = file.get_slice("starts")[part.first : part.end + 1]
                content = memoryview(file.get_slice("tokens")[int(starts[0]) : int(starts[-1])]).cast("B")
                bounds = ((starts - starts[0]) * layout.dtype.itemsize).tolist()
                tokens += [content[bounds[row] : bounds[row + 1]] for row in np.flatnonzero(stays).tolist()]
    if not keys:
        return _Ordered(np.zeros((0, layout.documents.num_sequences), dtype=np.int32), [])
    order = np.argsort(np.concatenate(keys), kind="stable")
    return _Ordered(
        np.concatenate(lengths)[order], [tokens[row] for row in order.tolist()] if with_tokens else []
    )


def tokens_of_first(layout: SetLayout, num_documents: int) -> int:
    """How many tokens the first documents of a set have."""
    totals = layout.totals()
    ends = np.cumsum(totals[:, _DOCUMENTS])
    whole = int(np.searchsorted(ends, num_documents, side="right"))
    num_tokens = int(totals[:whole, _TOKENS].sum())
    left = num_documents - (int(ends[whole - 1]) if whole else 0)
    if left:
        num_tokens += int(_ordered(layout, whole, with_tokens=False).lengths[:left].sum())
    return num_tokens


def plan_splits(layout: SetLayout, folder: Path, num_held_out: int, tokens_held_out: int) -> list[SplitPlan]:
    """The datasets that a set becomes under `folder`: its first `num_held_out` documents go to validation."""
    totals = layout.totals().sum(axis=0)
    num_documents, num_tokens = int(totals[_DOCUMENTS]), int(totals[_TOKENS])
    parts: tuple[tuple[Split, int, int, int, int], ...] = (
        ("valid", 0, num_held_out, 0, tokens_held_out),
        ("train", num_held_out, num_documents, tokens_held_out, num_tokens),
    )
    return [
        SplitPlan(
            split,
            IndexedFiles(
                folder / split / layout.documents.name,
                layout.dtype,
                end - first,
                layout.documents.num_sequences,
                end_token - first_token,
            ),
            first,
            first_token,
        )
        for split, first, end, first_token, end_token in parts
        if end > first
    ]


def write_range(layout: SetLayout, number: int, splits: Sequence[SplitPlan]) -> None:
    """Write the documents of one range to their places in the final files."""
    before = layout.totals()[:number].sum(axis=0)
    first_document, first_token = int(before[_DOCUMENTS]), int(before[_TOKENS])
    ordered = _ordered(layout, number)
    ends = np.concatenate([[0], np.cumsum(ordered.lengths.sum(axis=1, dtype=np.int64))]) + first_token
    for split in splits:
        begin = max(split.first_document - first_document, 0)
        end = min(split.first_document + split.files.num_documents - first_document, len(ordered.tokens))
        if begin < end:
            split.files.write(
                first_document + begin - split.first_document,
                int(ends[begin]) - split.first_token,
                b"".join(ordered.tokens[begin:end]),
                ordered.lengths[begin:end],
            )
