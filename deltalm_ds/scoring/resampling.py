"""How much of a score, or of a difference, is chance: bootstrap intervals and two paired tests.

With the same seed and number of resamples the draws, and so the p-values, are sacrebleu's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from deltalm_ds.scoring.base import Metric

PairedTest = Literal["bootstrap", "randomisation"]

_DRAWS_AT_ONCE = 1 << 22
_ONE_OF = 40
"""One resample of forty is left out at each end of an interval of 95 %."""


def bootstrap(metric: Metric, rows: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """The metric's columns of examples drawn with replacement: [resamples, columns] from [examples, counts]."""
    totals = [weights @ rows for weights in _multiplicities(len(rows), num_resamples, seed)]
    return _columns(metric, np.concatenate(totals))


def interval(resampled: np.ndarray) -> np.ndarray:
    """Where 95 % of the resamples [resamples, columns] lie: [columns, 2]."""
    ordered = np.sort(resampled, axis=0)
    outside = len(ordered) // _ONE_OF
    return np.stack([ordered[outside], ordered[len(ordered) - outside - 1]], axis=1)


def p_values(
    metric: Metric,
    rows: np.ndarray,
    baseline: np.ndarray,
    test: PairedTest,
    num_resamples: int,
    seed: int,
) -> np.ndarray:
    """How likely a difference as large as that of two systems is by chance, by column of the metric [columns].

    `rows` and `baseline` are the counts of the same examples [examples, counts]. Two-sided, the difference
    itself counted as one of the resamples. "bootstrap" draws examples with replacement (Koehn 2004);
    "randomisation" swaps the two systems' outputs of every example with probability 1/2 (Riezler and
    Maxwell 2005).
    """
    observed = np.abs(_of_sum(metric, rows) - _of_sum(metric, baseline))
    if test == "bootstrap":
        differences = np.abs(
            bootstrap(metric, rows, num_resamples, seed) - bootstrap(metric, baseline, num_resamples, seed)
        )
        differences -= differences.mean(axis=0)
    else:
        kept, swapped = zip(
            *(
                (own @ rows + ~own @ baseline, ~own @ rows + own @ baseline)
                for own in _swaps(len(rows), num_resamples, seed)
            ),
            strict=True,
        )
        differences = np.abs(
            _columns(metric, np.concatenate(kept)) - _columns(metric, np.concatenate(swapped))
        )
    return ((differences > observed).sum(axis=0) + 1) / (num_resamples + 1)


def _of_sum(metric: Metric, rows: np.ndarray) -> np.ndarray:
    return _columns(metric, rows.sum(axis=0, keepdims=True))[0]


def _columns(metric: Metric, totals: np.ndarray) -> np.ndarray:
    """The metric's columns [resamples, columns] of summed rows [resamples, counts]."""
    parts = [metric.parts(total) for total in totals]
    return np.array([[part[name] for name in metric.columns] for part in parts])


def _multiplicities(num_examples: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each example is in each resample, some resamples at a time [resamples, examples]."""
    generator = np.random.default_rng(seed)
    for count in _chunks(num_examples, num_resamples):
        drawn = generator.integers(num_examples, size=(count, num_examples))
        yield np.stack([np.bincount(draw, minlength=num_examples) for draw in drawn]).astype(np.float64)


def _swaps(num_examples: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Whether each example keeps its system, some resamples at a time [resamples, examples]."""
    generator = np.random.default_rng(seed)
    for count in _chunks(num_examples, num_resamples):
        yield generator.integers(2, size=(count, num_examples), dtype=bool)


def _chunks(num_examples: int, num_resamples: int) -> Iterator[int]:
    at_once = max(1, _DRAWS_AT_ONCE // num_examples)
    for start in range(0, num_resamples, at_once):
        yield min(at_once, num_resamples - start)
