"""Runs of different lengths that lie one after the other in one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def starts_of(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where the runs of those lengths [runs] begin, and where the last one ends; [runs + 1]."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def places_of_runs(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of all elements of some runs, run after run; [elements] for starts, lengths [runs]."""
    begins = starts_of(lengths)
    return np.arange(begins[-1]) + np.repeat(starts - begins[:-1], lengths)
