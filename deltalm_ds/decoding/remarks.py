"""What is counted of outputs and told at the end: how much there was, and what looks wrong."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_LONGEST_PERIOD = 8
_REPEATS = 4
_REPEATED_TOKENS = 8
_ODD_RATIO = 3.0
_FEWEST_FOR_RATIO = 20
_SHORT = 10

KINDS = {
    "cut": "sources too long and cut (of paragraphs, --split-sentences makes sentences)",
    "cut_target": "targets too long and cut",
    "repeated": "outputs that end in the same words over and over (--no-repeat-ngram 4 forbids it)",
    "limit": "outputs that reached the greatest length (--max-length-b raises it)",
    "odd_length": "outputs three times longer or shorter than usual for their sources",
    "empty": "outputs without text",
}
"""What looks wrong, in words."""


@dataclass
class Counts:
    """Sums over sentences, and for each kind of KINDS how many there are and the first one's line."""

    num_lines: int = 0
    """Lines of input."""
    num_lines_with_text: int = 0
    """Those that are not empty."""
    num_sentences: int = 0
    """What the model was asked for: these lines, or with --split-sentences their sentences."""
    num_tokens: int = 0
    """Generated or scored, `</s>` counted."""
    num_in_script: int = 0
    """Outputs of which most letters are of the target language's scripts."""
    found: dict[str, int] = field(default_factory=dict)
    """How many of each kind."""
    first_line: dict[str, int] = field(default_factory=dict)
    """The number of the first line of each kind, from 1."""

    def mark(self, kind: str, line: int) -> None:
        """Count one of a kind."""
        self.found[kind] = self.found.get(kind, 0) + 1
        self.first_line[kind] = min(line, self.first_line.get(kind, line))

    def add(self, other: Counts) -> None:
        """Count what `other` has as well."""
        for name in ("num_lines", "num_lines_with_text", "num_sentences", "num_tokens", "num_in_script"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, count in other.found.items():
            self.found[kind] = self.found.get(kind, 0) + count
            line = other.first_line[kind]
            self.first_line[kind] = min(line, self.first_line.get(kind, line))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))

    def warnings(self) -> list[str]:
        """One line for each kind that occurred."""
        return [
            f"{words}: {self.found[kind]:,} of {self.num_sentences:,}, the first in line "
            f"{self.first_line[kind]:,}"
            for kind, words in KINDS.items()
            if kind in self.found
        ]


def ends_in_repetition(tokens: Sequence[int]) -> bool:
    """Whether the last tokens are one sequence of 1 to 8 tokens, four times or more and 8 tokens or more."""
    for period in range(1, _LONGEST_PERIOD + 1):
        length = max(_REPEATS * period, _REPEATED_TOKENS)
        tail = tokens[-length:]
        if len(tail) == length and all(tail[i] == tail[i - period] for i in range(period, length)):
            return True
    return False


def odd_lengths(num_source: Sequence[int], num_target: Sequence[int]) -> list[int]:
    """The places of outputs that are three times longer or shorter than usual for their sources.

    Usual is the median ratio of the chunk, for summaries are shorter than translations; of fewer than twenty
    outputs, and of short ones, nothing is said.
    """
    if len(num_source) < _FEWEST_FOR_RATIO:
        return []
    ratios = [target / source for source, target in zip(num_source, num_target, strict=True)]
    usual = statistics.median(ratios)
    return [
        place
        for place, ratio in enumerate(ratios)
        if max(num_target[place], num_source[place] * usual) >= _SHORT
        and not usual / _ODD_RATIO <= ratio <= usual * _ODD_RATIO
    ]
