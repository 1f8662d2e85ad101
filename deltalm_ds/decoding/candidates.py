"""From the decoder's hidden states to the continuations of each sentence's hypotheses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deltalm_ds import ops
from deltalm_ds.decoding.constraints import FREE, Constraints
from deltalm_ds.decoding.incremental import IncrementalDecoder
from deltalm_ds.decoding.sampling import draw, uniform
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.text.vocabulary import Vocabulary

_LOGITS_AT_ONCE = 1 << 24


class Candidates(NamedTuple):
    """Continuations, [sentences, candidates] each; those of total -inf are none."""

    tokens: Tensor
    """int64."""
    parents: Tensor
    """int64: the hypothesis that is continued."""
    scores: Tensor
    """fp32: log-probability of the token."""
    totals: Tensor
    """fp32: summed log-probabilities of the hypothesis with that token."""

    def take(self, places: Tensor) -> Candidates:
        """Those at places [sentences, n]."""
        return Candidates(*(part.gather(1, places) for part in self))

    def going_on(self, beam: int) -> Candidates:
        """The first `beam` without `</s>`; where there are fewer, dead ones fill up."""
        ends = self.tokens == Vocabulary.EOS
        place = torch.arange(ends.shape[1], device=ends.device)
        order = (place + ends * len(place)).sort(1).indices[:, :beam]
        chosen = self.take(order)
        dead = chosen.tokens == Vocabulary.EOS
        return chosen._replace(totals=chosen.totals.masked_fill(dead, -torch.inf))


class Hypotheses(NamedTuple):
    """What a step has to choose from; all [sentences, …]."""

    hidden: Tensor
    """[sentences, hypotheses, width]: the decoder's."""
    totals: Tensor
    """[sentences, hypotheses] fp32: summed log-probabilities."""
    numbers: Tensor
    """[sentences] int64: the sentences' numbers in the whole text."""
    history: Tensor | None
    """[sentences, hypotheses, step] int64: the tokens so far, if the chooser `reads_history`."""
    forced: Tensor | None
    """[sentences] int64: a token that must come or FREE; None where all are free."""

    def part(self, some: slice) -> Hypotheses:
        """Those of some sentences."""
        return Hypotheses(
            self.hidden[some],
            self.totals[some],
            self.numbers[some],
            None if self.history is None else self.history[some],
            None if self.forced is None else self.forced[some],
        )


class Chooser:
    """Finds the best continuations, or draws some."""

    def __init__(self, decoder: IncrementalDecoder, settings: SearchSettings, forbidden: Tensor) -> None:
        self._decoder = decoder
        self._settings = settings
        self._constraints = Constraints(settings, forbidden)
        self._logits = torch.empty(0, device=forbidden.device)
        self.reads_history = self._constraints.reads_history

    def __call__(self, hypotheses: Hypotheses, step: int) -> Candidates:
        """Continuations of each sentence: the best first, or one drawn for each hypothesis."""
        num_sentences, num_hypotheses = hypotheses.totals.shape
        at_once = max(1, _LOGITS_AT_ONCE // (num_hypotheses * len(self._decoder.table)))
        parts = [
            self._of_part(hypotheses.part(slice(first, first + at_once)), step)
            for first in range(0, num_sentences, at_once)
        ]
        return parts[0] if len(parts) == 1 else Candidates(*map(torch.cat, zip(*parts, strict=True)))

    def _of_part(self, hypotheses: Hypotheses, step: int) -> Candidates:
        logits = self._logits_of(hypotheses.hidden.flatten(0, 1))
        log_sums = ops.log_sums(logits)
        forced = _Forced.of(hypotheses, logits, log_sums)
        history = hypotheses.history
        self._constraints.apply(logits, log_sums, None if history is None else history.flatten(0, 1), step)
        if self._settings.sampling:
            candidates = self._drawn(logits, log_sums, hypotheses, step)
            return candidates if forced is None else forced.each(candidates)
        candidates = self._best(logits, log_sums, hypotheses.totals)
        return candidates if forced is None else forced.best(candidates)

    def _logits_of(self, hidden: Tensor) -> Tensor:
        """[rows, vocabulary], in memory that is used again: new memory costs as much as the product."""
        if len(self._logits) < len(hidden):
            self._logits = self._logits.new_empty(len(hidden), len(self._decoder.table))
        return self._decoder.logits(hidden, self._logits)

    def _best(self, logits: Tensor, log_sums: Tensor, totals: Tensor) -> Candidates:
        """The 2 * beam best continuations, so that `beam` go on however many end."""
        num_wanted = 2 * self._settings.beam
        values, tokens = ops.largest(logits, num_wanted)
        scores = values - log_sums[:, None]
        of_sentence = len(totals), -1
        all_totals = (totals.view(-1, 1) + scores).view(of_sentence)
        best, places = ops.largest(all_totals, num_wanted)
        return Candidates(
            tokens.view(of_sentence).gather(1, places),
            places.div(values.shape[1], rounding_mode="floor"),
            scores.view(of_sentence).gather(1, places),
            best,
        )

    def _drawn(self, logits: Tensor, log_sums: Tensor, hypotheses: Hypotheses, step: int) -> Candidates:
        """One continuation of each hypothesis; at the first step as many as are wanted of the only one."""
        beam, totals = self._settings.beam, hypotheses.totals
        uniforms = uniform(self._settings.seed, hypotheses.numbers, step, beam).view(len(logits), -1)
        tokens = draw(logits, uniforms, self._settings)
        scores = (logits.gather(1, tokens) - log_sums[:, None]).view(-1, beam)
        parents = torch.arange(beam, device=logits.device) % totals.shape[1]
        return Candidates(tokens.view(-1, beam), parents.expand(len(totals), -1), scores, totals + scores)


@dataclass(frozen=True)
class _Forced:
    """Continuations by the one token that a sentence must have."""

    tokens: Tensor
    """[sentences, 1] int64, FREE where there is none."""
    scores: Tensor
    """[sentences, hypotheses] fp32: their log-probabilities."""
    totals: Tensor
    """[sentences, hypotheses] fp32: those of the hypotheses with them."""

    @classmethod
    def of(cls, hypotheses: Hypotheses, logits: Tensor, log_sums: Tensor) -> _Forced | None:
        """None where all sentences are free; logits [rows, vocabulary] before constraints."""
        if hypotheses.forced is None:
            return None
        tokens = hypotheses.forced[:, None]
        of_rows = tokens.clamp(min=0).expand_as(hypotheses.totals).reshape(-1, 1)
        scores = (logits.gather(1, of_rows)[:, 0] - log_sums).view(hypotheses.totals.shape)
        return cls(tokens, scores, hypotheses.totals + scores)

    def best(self, candidates: Candidates) -> Candidates:
        """In place of a sentence's best candidates: each hypothesis once, the best first."""
        totals, parents = self.totals.sort(dim=1, descending=True, stable=True)
        missing = (0, candidates.tokens.shape[1] - totals.shape[1])
        return self._in_place_of(
            candidates,
            F.pad(parents, missing),
            F.pad(self.scores.gather(1, parents), missing),
            F.pad(totals, missing, value=-torch.inf),
        )

    def each(self, candidates: Candidates) -> Candidates:
        """In place of what was drawn."""
        parents = candidates.parents
        return self._in_place_of(
            candidates, parents, self.scores.gather(1, parents), self.totals.gather(1, parents)
        )

    def _in_place_of(self, candidates: Candidates, *others: Tensor) -> Candidates:
        free = self.tokens == FREE
        parts = zip(candidates, (self.tokens, *others), strict=True)
        return Candidates(*(part.where(free, other) for part, other in parts))
