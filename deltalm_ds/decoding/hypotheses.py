"""Finished hypotheses: written down step by step as tensors, read back from their ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """One output of a sentence."""

    tokens: list[int]
    """Without the start token; ends with `</s>`."""
    score: float
    """Sum of token_scores / len(tokens) ** length_penalty."""
    token_scores: list[float]
    """Log-probability of each token, in nats, after the repetition penalty."""


class History:
    """What the steps chose, kept as tensors until the end."""

    def __init__(self) -> None:
        self._ends: list[tuple[Tensor, ...]] = []
        self._steps: list[tuple[Tensor, ...]] = []

    def add_ends(
        self, sentences: Tensor, ends: Tensor, parents: Tensor, totals: Tensor, scores: Tensor
    ) -> None:
        """Which candidates finish a hypothesis, once a step.

        sentences [rows] int64: those that are live; ends [rows, n] bool; parents [rows, n] int64: the
        hypotheses that `</s>` ends; totals [rows, n]: summed log-probabilities; scores [rows, n]: that of
        `</s>`.
        """
        self._ends.append((sentences, ends, parents, totals, scores))

    def add_step(self, sentences: Tensor, tokens: Tensor, parents: Tensor, scores: Tensor) -> None:
        """The hypotheses that go on, once a step and after `add_ends`; all [rows, hypotheses]."""
        self._steps.append((sentences, tokens, parents, scores))

    def read_back(
        self, num_sentences: int, length_penalty: float, num_best: int, end: int
    ) -> list[list[Hypothesis]]:
        """The `num_best` best hypotheses of each sentence, best first, earlier ones before equals."""
        found: list[list[Hypothesis]] = [[] for _ in range(num_sentences)]
        lengths, sentences, hypotheses, totals, end_scores = self._finished()
        tokens = np.full((len(lengths), len(self._ends)), end)
        scores = np.empty(tokens.shape)
        scores[np.arange(len(lengths)), lengths - 1] = end_scores
        # The longest come first: those that have a token at a place are the first so many.
        for place in range(len(self._steps) - 1, -1, -1):
            live, *chosen = (tensor.cpu().numpy() for tensor in self._steps[place])
            row_of_sentence = np.empty(num_sentences, dtype=np.int64)
            row_of_sentence[live] = np.arange(len(live))
            longer = slice(0, int((lengths > place + 1).sum()))
            at = row_of_sentence[sentences[longer]], hypotheses[longer]
            tokens[longer, place], hypotheses[longer], scores[longer, place] = (part[at] for part in chosen)
        normalised = totals / lengths**length_penalty
        for number in range(len(lengths) - 1, -1, -1):
            own = slice(0, lengths[number])
            found[sentences[number]].append(
                Hypothesis(tokens[number, own].tolist(), float(normalised[number]), scores[number, own].tolist())
            )
        return [sorted(some, key=lambda hypothesis: -hypothesis.score)[:num_best] for some in found]

    def _finished(self) -> tuple[np.ndarray, ...]:
        """Length, sentence, last hypothesis, total and score of `</s>` of each, the last finished first."""
        parts = []
        for place in range(len(self._ends) - 1, -1, -1):
            sentences, ends, *details = (tensor.cpu().numpy() for tensor in self._ends[place])
            rows, columns = (index[::-1] for index in ends.nonzero())
            length = np.full(len(rows), place + 1)
            parts.append((length, sentences[rows], *(detail[rows, columns] for detail in details)))
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
