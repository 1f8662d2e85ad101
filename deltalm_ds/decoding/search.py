"""Beam search and sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deltalm_ds.decoding.caches import Moves
from deltalm_ds.decoding.candidates import Candidates, Chooser, Hypotheses
from deltalm_ds.decoding.constraints import ForcedTokens, forbidden_tokens
from deltalm_ds.decoding.hypotheses import History, Hypothesis
from deltalm_ds.decoding.incremental import IncrementalDecoder
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.text.vocabulary import Vocabulary

__all__ = ["Generator", "Hypothesis"]


class Generator:
    """Searches targets with a model's weights as they are when this is made.

    `allowed` bool [vocabulary_rows]: the only tokens to produce; by default all but `<pad>`, which never is.
    """

    def __init__(self, model: DeltaLM, settings: SearchSettings, *, allowed: Tensor | None = None) -> None:
        self._model = model
        self._settings = settings
        self._device = model.embedding.weight.device
        self._decoder = IncrementalDecoder(model)
        forbidden = forbidden_tokens(allowed, model.config.vocabulary_rows)
        self._chooser = Chooser(self._decoder, settings, forbidden.to(self._device))

    # inference_mode would leave scratch tensors behind that training, which shares them, cannot write.
    @torch.no_grad()
    def generate(
        self,
        sources: Sequence[Sequence[int]],
        *,
        numbers: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Hypothesis]]:
        """The best hypotheses of each source, best first; decoded together, as one batch.

        Sources end with `</s>`. `numbers`, by default from 0 on, are the sentences' numbers in the whole
        text, which name the draws of sampling. `prefixes`: tokens that each sentence's outputs begin with,
        as far as the greatest length lets them. A sentence has fewer hypotheses than asked for, or none,
        where the settings rule out every other.

        The search is fairseq's: of the 2 * beam best continuations, those by `</s>` among the first `beam`
        finish a hypothesis; a sentence is done with `beam` finished hypotheses, or at its greatest length,
        where `</s>` is forced. ValueError for an empty source, a source longer than the model's positions,
        and tokens that the model has not.
        """
        if not sources:
            return []
        self._check(sources, prefixes)
        source = PackedTokens.from_sequences(sources).to(self._device)
        limits = [self.greatest_length(len(tokens)) for tokens in sources]
        forced_tokens = ForcedTokens(limits, prefixes)
        state = self._decoder.start(self._model.encode(source), source, self._settings.beam)
        live = _Live(numbers or range(len(sources)), limits, self._chooser.reads_history, self._device)
        history = History()
        for step in range(max(limits) + 1):
            hidden = self._decoder.step(live.tokens, state)
            forced = forced_tokens.at(step, live.names)
            hypotheses = Hypotheses(
                hidden.unflatten(0, live.tokens.shape),
                live.totals,
                live.numbers,
                live.before,
                None if forced is None else torch.tensor(forced, device=self._device),
            )
            candidates = self._chooser(hypotheses, step)
            ending = Candidates(*(part[:, : self._settings.beam] for part in candidates))
            ends = live.finish(ending, self._settings.beam)
            history.add_ends(live.sentences, ends, ending.parents, ending.totals, ending.scores)
            going_on = candidates.going_on(self._settings.beam)
            history.add_step(live.sentences, going_on.tokens, going_on.parents, going_on.scores)
            live.continue_with(going_on)
            stays = live.stay(self._settings.beam, step)
            if not any(stays):
                break
            if not all(stays):
                moves = Moves(stays, self._device)
                live.leave(moves)
                state.leave(moves)
            state.reorder(live.parents)
        return history.read_back(
            len(sources), self._settings.length_penalty, self._settings.num_best, Vocabulary.EOS
        )

    def greatest_length(self, num_source_tokens: int) -> int:
        """Tokens of an output before `</s>`, at most, for a source of so many, `</s>` counted."""
        wanted = int(self._settings.max_length_a * num_source_tokens + self._settings.max_length_b)
        return min(wanted, self._model.config.max_positions - 1)

    def _check(self, sources: Sequence[Sequence[int]], prefixes: Sequence[Sequence[int]] | None) -> None:
        num_rows = self._model.config.vocabulary_rows
        if prefixes is not None and len(prefixes) != len(sources):
            raise ValueError(f"{len(sources)} sources, but {len(prefixes)} prefixes")
        for tokens in sources:
            if not len(tokens):
                raise ValueError("an empty source; one has </s> at least")
        for tokens in (*sources, *(prefixes or ())):
            if len(tokens) and not (min(tokens) >= 0 and max(tokens) < num_rows):
                raise ValueError(f"a token outside of the model's {num_rows} rows")


class _Live:
    """The sentences that are being decoded, and their hypotheses; all tensors [sentences, …]."""

    def __init__(
        self, numbers: Sequence[int], limits: Sequence[int], keeps_tokens: bool, device: torch.device
    ) -> None:
        self.names = list(range(len(limits)))
        """Which sources these are, on the CPU."""
        self.sentences = torch.arange(len(limits), device=device)
        """The same on the device."""
        self.numbers = torch.tensor(numbers, device=device)
        """Numbers in the whole text."""
        self._limits = torch.tensor(limits, device=device)
        self._num_finished = torch.zeros_like(self.sentences)
        self.tokens = torch.full((len(limits), 1), Vocabulary.EOS, device=device)
        """[sentences, hypotheses]: what the decoder reads next; at first `</s>`, of one hypothesis."""
        self.parents = torch.zeros_like(self.tokens)
        """[sentences, hypotheses]: the hypotheses of the step before that these continue."""
        self.totals = torch.zeros(len(limits), 1, device=device)
        """[sentences, hypotheses] fp32: summed log-probabilities; -inf of dead hypotheses."""
        self.before = self.tokens[..., None][..., :0] if keeps_tokens else None
        """[sentences, hypotheses, step]: the tokens so far, if anything wants them."""

    def finish(self, candidates: Candidates, beam: int) -> Tensor:
        """Which candidates [sentences, n] finish a hypothesis: `</s>`, as long as `beam` are not complete."""
        ends = (candidates.tokens == Vocabulary.EOS) & (candidates.totals > -torch.inf)
        ends &= ends.cumsum(1) + self._num_finished[:, None] <= beam
        self._num_finished += ends.sum(1)
        return ends

    def continue_with(self, candidates: Candidates) -> None:
        """Replace the hypotheses."""
        self.tokens, self.parents, self.totals = candidates.tokens, candidates.parents, candidates.totals
        if self.before is not None:
            index = self.parents[..., None].expand(-1, -1, self.before.shape[2])
            self.before = torch.cat([self.before.gather(1, index), self.tokens[..., None]], 2)

    def stay(self, beam: int, step: int) -> list[bool]:
        """Which sentences are not done."""
        searching = (self._num_finished < beam) & (self._limits > step)
        return (searching & (self.totals > -torch.inf).any(1)).tolist()

    def leave(self, moves: Moves) -> None:
        """Only some sentences are left."""
        self.names = moves.of_list(self.names)
        for name in ("sentences", "numbers", "_limits", "_num_finished", "tokens", "parents", "totals"):
            setattr(self, name, moves.picked(getattr(self, name)))
        if self.before is not None:
            self.before = moves.picked(self.before)
