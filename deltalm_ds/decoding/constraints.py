"""What a hypothesis must not, or must, go on with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.text.vocabulary import Vocabulary

FREE = -1
"""In place of a token: nothing is forced."""


def forbidden_tokens(allowed: Tensor | None, num_rows: int) -> Tensor:
    """Ids that are never produced: `<pad>`, and all that are not in `allowed` (bool [num_rows])."""
    if allowed is None:
        return torch.tensor([Vocabulary.PAD])
    if allowed.shape != (num_rows,) or allowed.dtype != torch.bool:
        raise ValueError(f"allowed must be bool [{num_rows}], not {allowed.dtype} {list(allowed.shape)}")
    if not allowed[Vocabulary.EOS]:
        raise ValueError("allowed leaves out </s>, without which no output ends")
    forbidden = ~allowed.cpu()
    forbidden[Vocabulary.PAD] = True
    return forbidden.nonzero()[:, 0]


class ForcedTokens:
    """Which sentences have no choice at a step: a prefix is not over, or the greatest length is reached."""

    def __init__(self, limits: Sequence[int], prefixes: Sequence[Sequence[int]] | None) -> None:
        self._limits = limits
        self._prefixes = prefixes or [()] * len(limits)

    def at(self, step: int, sentences: Sequence[int]) -> list[int] | None:
        """The token of each sentence or FREE; None where all are free."""
        forced = [self._of(step, sentence) for sentence in sentences]
        return None if all(token == FREE for token in forced) else forced

    def _of(self, step: int, sentence: int) -> int:
        if step >= self._limits[sentence]:
            return Vocabulary.EOS
        prefix = self._prefixes[sentence]
        return prefix[step] if step < len(prefix) else FREE


class Constraints:
    """Changes logits so that no hypothesis goes on with what the settings rule out."""

    def __init__(self, settings: SearchSettings, forbidden: Tensor) -> None:
        self._settings = settings
        self._forbidden = forbidden
        self.reads_history = settings.no_repeat_ngram > 0 or settings.repetition_penalty != 1
        """Whether `apply` wants the hypotheses' tokens."""

    def apply(self, logits: Tensor, log_sums: Tensor, history: Tensor | None, step: int) -> None:
        """In place. logits [rows, vocabulary], log_sums [rows] of their exponentials; history [rows, step]."""
        if history is not None and self._settings.repetition_penalty != 1:
            log_sums = log_sums[:, None]
            seen = logits.gather(1, history) - log_sums
            logits.scatter_(1, history, seen * self._settings.repetition_penalty + log_sums)
        logits.index_fill_(1, self._forbidden, -torch.inf)
        if step < self._settings.min_length:
            logits[:, Vocabulary.EOS] = -torch.inf
        size = self._settings.no_repeat_ngram
        if history is not None and 0 < size <= step:
            logits.scatter_reduce_(1, *_repeating(history, size), "amin")


def _repeating(history: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Tokens [rows, places] of history [rows, tokens], and -inf where one would end a sequence of `size`
    tokens that has been before, else inf."""
    num_places = history.shape[1] - size + 1
    repeats = torch.ones(len(history), num_places, dtype=torch.bool, device=history.device)
    for offset in range(size - 1):
        last = history[:, num_places + offset, None]
        repeats &= history[:, offset : offset + num_places] == last
    bounds = torch.full_like(history[:, size - 1 :], torch.inf, dtype=torch.float32)
    return history[:, size - 1 :], bounds.masked_fill_(repeats, -torch.inf)
