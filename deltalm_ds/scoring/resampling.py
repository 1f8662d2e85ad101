"""How much of a score, or of a difference, is chance: bootstrap intervals and two paired tests.

With the same seed and number of resamples the draws are sacrebleu's, and so are the p-values, but where
resamples differ exactly as the systems do: here they count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from deltalm_ds.scoring.base import Metric

PairedTest = Literal["bootstrap", "randomisation"]

_DRAWS_AT_ONCE = 1 << 22
_ROUNDING = 1e-9
_ONE_OF = 40
"""One resample of forty is left out at each end of an interval of 95 %."""


def bootstrap(metric: Metric, rows: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """The metric's columns [resamples, columns] of examples [examples, counts] drawn with replacement."""
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
    """How likely so large a difference of two systems is by chance, by column of the metric [columns].

    `rows` and `baseline` are the counts of the same examples [examples, counts]. "randomisation" swaps the
    two systems' outputs of every example with probability 1/2 (Riezler and Maxwell 2005): two-sided.
    "bootstrap" draws examples with replacement (Koehn 2004) and, as sacrebleu, counts where the absolute
    difference exceeds its own mean by the observed one: about half the p-value of a two-sided test. In both
    the observed difference counts as one resample more.
    """
    observed = np.abs(_of_sum(metric, rows) - _of_sum(metric, baseline))
    if test == "bootstrap":
        differences = np.abs(
            bootstrap(metric, rows, num_resamples, seed) - bootstrap(metric, baseline, num_resamples, seed)
        )
        differences -= differences.mean(axis=0)
    else:
        both = rows.sum(axis=0) + baseline.sum(axis=0)
        kept = np.concatenate(
            [own @ rows + (1 - own) @ baseline for own in _keeps(len(rows), num_resamples, seed)]
        )
        differences = np.abs(_columns(metric, kept) - _columns(metric, both - kept))
    # Equal ones count, or two equal systems would differ beyond doubt; sums may differ in their last bits.
    return ((differences > observed - _ROUNDING).sum(axis=0) + 1) / (num_resamples + 1)


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


def _keeps(num_examples: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """1 where an example keeps its system, else 0, some resamples at a time [resamples, examples]."""
    generator = np.random.default_rng(seed)
    for count in _chunks(num_examples, num_resamples):
        yield generator.integers(2, size=(count, num_examples), dtype=bool).astype(np.float64)


def _chunks(num_examples: int, num_resamples: int) -> Iterator[int]:
    at_once = max(1, _DRAWS_AT_ONCE // num_examples)
    for start in range(0, num_resamples, at_once):
        yield min(at_once, num_resamples - start)
