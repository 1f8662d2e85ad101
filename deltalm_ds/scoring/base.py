"""What every metric is: counts of each example, whose sums make the score.

So groups of examples, resampling and paired tests are sums over other rows, and texts are compared once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deltalm_ds.errors import UserError


@dataclass(frozen=True)
class Score:
    """What a metric says of texts."""

    value: float
    """From 0 to 100; TER has no upper bound."""
    parts: dict[str, float]
    """All numbers of the metric, the value among them."""
    signature: str
    """What another must know to get the same number."""


@dataclass(frozen=True)
class Statistics:
    """What a metric counts in texts."""

    rows: np.ndarray
    """[examples, counts], float64; the score of some examples is that of the sum of their rows."""
    signature: str
    """What another must know to get the same number."""


@dataclass(frozen=True)
class Metric(ABC):
    """A published metric with all its choices made."""

    name: str
    """What the command line calls it."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The parts that tables show and tests compare; the last is the score's value."""

    @property
    def higher_is_better(self) -> bool:
        """False of error rates."""
        return True

    def score(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Score:
        """The score of `hypotheses`, each against its own `references`, one or more, not always as many.

        UserError where there is nothing to score, or an example has no reference.
        """
        statistics = self.statistics(hypotheses, references)
        parts = self.parts(statistics.rows.sum(axis=0))
        return Score(parts[self.columns[-1]], parts, statistics.signature)

    def statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """The counts that `score` sums up; errors as there."""
        if not hypotheses:
            raise UserError("there is nothing to score: no hypotheses")
        if len(hypotheses) != len(references):
            raise UserError(
                f"{len(hypotheses)} hypotheses have references for {len(references)}: give as many"
            )
        for number, texts in enumerate(references, start=1):
            if not texts:
                raise UserError(f"example {number} has no reference: leave it out")
        return self._statistics(hypotheses, references)

    @abstractmethod
    def _statistics(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Statistics:
        """`statistics` of what was checked."""

    @abstractmethod
    def parts(self, total: np.ndarray) -> dict[str, float]:
        """The numbers of the metric from summed rows [counts]."""


def num_references(references: Sequence[Sequence[str]]) -> str:
    """How many references each example has, for a signature: "4", or "var" where they differ."""
    numbers = {len(texts) for texts in references}
    return str(numbers.pop()) if len(numbers) == 1 else "var"
