"""From the decoder's hidden states to the continuations of each sentence's hypotheses."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

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


class Chooser:
    """Finds the best continuations, or draws some."""

    def __init__(self, decoder: IncrementalDecoder, settings: SearchSettings, forbidden: Tensor) -> None:
        self._decoder = decoder
        self._settings = settings
        self._constraints = Constraints(settings, forbidden)
        self._logits = torch.empty(0, device=forbidden.device)
        self.reads_history = self._constraints.reads_history

    def __call__(
        self,
        hidden: Tensor,
        totals: Tensor,
        history: Tensor | None,
        forced: Tensor | None,
        numbers: Tensor,
        step: int,
    ) -> Candidates:
        """Continuations of each sentence, best first.

        hidden [sentences * hypotheses, width]; totals [sentences, hypotheses]; history [sentences,
        hypotheses, step] int64, the tokens so far; forced [sentences] int64, a token that must come or FREE;
        numbers [sentences] int64, the sentences' numbers in the whole text.
        """
        num_hypotheses = totals.shape[1]
        at_once = max(1, _LOGITS_AT_ONCE // (num_hypotheses * len(self._decoder.table)))
        parts = [
            self._of_part(
                hidden[first * num_hypotheses : (first + at_once) * num_hypotheses],
                *(
                    tensor if tensor is None else tensor[first : first + at_once]
                    for tensor in (totals, history, forced, numbers)
                ),
                step,
            )
            for first in range(0, len(totals), at_once)
        ]
        if len(parts) == 1:
            return parts[0]
        return Candidates(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def _of_part(
        self,
        hidden: Tensor,
        totals: Tensor,
        history: Tensor | None,
        forced: Tensor | None,
        numbers: Tensor,
        step: int,
    ) -> Candidates:
        num_hypotheses = totals.shape[1]
        logits = self._decoder.logits(hidden, self._room(len(hidden)))
        log_sums = logits.logsumexp(1)
        forced_scores = None if forced is None else self._forced_scores(logits, log_sums, forced)
        self._constraints.apply(logits, log_sums, None if history is None else history.flatten(0, 1), step)
        if self._settings.sampling:
            return self._drawn(logits, log_sums, totals, forced, forced_scores, numbers, step)
        candidates = self._best(logits, log_sums, totals)
        if forced is None or forced_scores is None:
            return candidates
        return _with_forced(candidates, forced, forced_scores, totals)

    def _forced_scores(self, logits: Tensor, log_sums: Tensor, forced: Tensor) -> Tensor:
        """Log-probabilities [sentences, hypotheses] of the forced tokens; of any token where none is."""
        num_hypotheses = len(logits) // len(forced)
        tokens = forced.clamp(min=0).repeat_interleave(num_hypotheses)
        return (logits.gather(1, tokens[:, None])[:, 0] - log_sums).view(-1, num_hypotheses)

    def _room(self, num_rows: int) -> Tensor:
        """Logits of so many rows, in memory that is used again: new memory costs as much as the product."""
        if len(self._logits) < num_rows:
            self._logits = self._logits.new_empty(num_rows, len(self._decoder.table))
        return self._logits

    def _best(self, logits: Tensor, log_sums: Tensor, totals: Tensor) -> Candidates:
        """The 2 * beam best continuations, so that `beam` go on however many end."""
        num_wanted = 2 * self._settings.beam
        values, tokens = logits.topk(min(num_wanted, logits.shape[1]), dim=1)
        scores = values - log_sums[:, None]
        of_sentence = len(totals), -1
        all_totals = (totals.view(-1, 1) + scores).view(of_sentence)
        best, places = all_totals.topk(min(num_wanted, all_totals.shape[1]), dim=1)
        return Candidates(
            tokens.view(of_sentence).gather(1, places),
            places.div(values.shape[1], rounding_mode="floor"),
            scores.view(of_sentence).gather(1, places),
            best,
        )

    def _drawn(
        self,
        logits: Tensor,
        log_sums: Tensor,
        totals: Tensor,
        forced: Tensor | None,
        forced_scores: Tensor | None,
        numbers: Tensor,
        step: int,
    ) -> Candidates:
        """One continuation of each hypothesis; at the first step as many as are wanted of the only one."""
        beam, num_hypotheses = self._settings.beam, totals.shape[1]
        uniforms = uniform(self._settings.seed, numbers, step, beam).view(len(logits), -1)
        drawn = draw(logits, uniforms, self._settings)
        scores = (logits.gather(1, drawn) - log_sums[:, None]).view(-1, beam)
        tokens = drawn.view(-1, beam)
        if forced is not None and forced_scores is not None:
            free = (forced == FREE)[:, None]
            tokens = tokens.where(free, forced[:, None])
            scores = scores.where(free, forced_scores)
        parents = torch.arange(beam, device=logits.device) % num_hypotheses
        return Candidates(tokens, parents.expand(len(totals), -1), scores, totals + scores)


def _with_forced(candidates: Candidates, forced: Tensor, scores: Tensor, totals: Tensor) -> Candidates:
    """Where a sentence has a forced token: each hypothesis with that token, the best first, and no others.

    forced [sentences]; scores [sentences, hypotheses] of the forced tokens; totals likewise, without them.
    """
    all_totals, parents = (totals + scores).sort(dim=1, descending=True, stable=True)
    missing = (0, candidates.tokens.shape[1] - totals.shape[1])
    continued = Candidates(
        forced[:, None].expand_as(candidates.tokens),
        F.pad(parents, missing),
        F.pad(scores.gather(1, parents), missing),
        F.pad(all_totals, missing, value=-torch.inf),
    )
    free = (forced == FREE)[:, None]
    return Candidates(*(part.where(free, other) for part, other in zip(candidates, continued, strict=True)))
