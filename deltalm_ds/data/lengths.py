"""How long documents are, from the .idx alone, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.corpus import Source

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MAX_SEQUENCES = 1 << 20
"""Of a dataset with more sequences, about this many are read."""
_RUN = 1 << 12  # sequences next to each other: pages of the file, not single numbers, are what reading costs


@dataclass(frozen=True, kw_only=True)
class LengthSummary:
    """Tokens of a document, or of a pair's two sides together, special tokens counted."""

    mean: float
    """Of all documents, exact."""
    quantiles: tuple[float, ...]
    """At `QUANTILES`."""
    longest: int
    """Of the documents that were read."""
    is_sampled: bool
    """Whether there were too many documents to read the lengths of all."""

    @property
    def median(self) -> float:
        """Half of the documents are no longer."""
        return self.quantiles[QUANTILES.index(0.5)]


def summarise_lengths(source: Source, max_sequences: int = MAX_SEQUENCES) -> LengthSummary | None:
    """The lengths of a source's documents; None where it has none.

    Reads the lengths of all, or where there are more than `max_sequences` sequences, those of runs spread
    evenly over the file. UserError where the index, as far as it is read, cannot be.
    """
    dataset, sides = source.dataset, len(source.languages)
    if dataset.num_sequences != dataset.num_documents * sides:
        raise dataset.damaged(
            f"{dataset.num_sequences:,} sequences in {dataset.num_documents:,} documents of {source.kind}"
        )
    if not dataset.num_documents:
        return None
    is_sampled = dataset.num_sequences > max_sequences
    runs = _spread_runs(dataset.num_sequences, max_sequences) if is_sampled else [slice(None)]
    by_sequence = np.concatenate([dataset.lengths[run] for run in runs])
    if by_sequence.min() < 0:
        raise dataset.damaged("a sequence has a negative length")
    lengths: NDArray[np.int64] = by_sequence.reshape(-1, sides).sum(axis=1, dtype=np.int64)
    if not is_sampled and lengths.sum() != dataset.num_tokens:
        raise dataset.damaged(
            f"its lengths sum to {lengths.sum():,} tokens, and there are {dataset.num_tokens:,}"
        )
    return LengthSummary(
        mean=dataset.num_tokens / dataset.num_documents,
        quantiles=tuple(np.quantile(lengths, QUANTILES).tolist()),
        longest=int(lengths.max()),
        is_sampled=is_sampled,
    )


def _spread_runs(num_sequences: int, max_sequences: int) -> Iterator[slice]:
    """Runs of `_RUN` sequences that begin with an even one, together about `max_sequences`."""
    num_runs = max(max_sequences // _RUN, 1)
    for start in np.linspace(0, num_sequences - min(_RUN, num_sequences), num_runs).astype(np.int64).tolist():
        yield slice(start - start % 2, start - start % 2 + _RUN)
