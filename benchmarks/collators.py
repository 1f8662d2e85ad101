"""T5's span corruption of equally long texts in NumPy, as collators of public trainers do it, and faster.

Both kinds of tokens are cut into random segments, which alternate; where a segment of masked tokens begins a
running count gives the sentinel; what is masked is filtered out. The masks come one text at a time, as usual,
or for all texts at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.objectives import SpanCorruption
from deltalm_ds.text.vocabulary import Vocabulary

Batch = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Source, decoder input and labels, [texts, length] each."""


class Collator:
    """Makes padded batches, which need no padding as all texts are equally long.

    Args:
        num_tokens: of every text.
        objective: gives the counts; T5's form.
        first_sentinel_id: id of `<mask_0>`, those that follow are above it.
    """

    def __init__(self, num_tokens: int, objective: SpanCorruption, first_sentinel_id: int) -> None:
        counts = objective.lengths(num_tokens)
        self._num_tokens, self._first_sentinel_id = num_tokens, first_sentinel_id
        self._num_noise, self._num_spans = int(counts.noise), int(counts.spans)
        self._generator = np.random.default_rng(0)

    def one_by_one(self, texts: NDArray[np.int64]) -> list[Batch]:
        """Every text [texts, tokens] as a batch of its own."""
        return [self.collate(text[None], self._mask()[None]) for text in texts]

    def masks_one_by_one(self, texts: NDArray[np.int64]) -> Batch:
        """One batch; masks are drawn one after the other."""
        return self.collate(texts, np.stack([self._mask() for _ in texts]))

    def at_once(self, texts: NDArray[np.int64]) -> Batch:
        """One batch; masks are drawn together."""
        return self.collate(texts, self._masks(len(texts)))

    def collate(self, texts: NDArray[np.int64], masks: NDArray[np.bool_]) -> Batch:
        """Texts [texts, tokens] with those of their tokens masked."""
        source, labels = self._filtered(texts, masks), self._filtered(texts, ~masks)
        decoder_input = np.empty_like(labels)
        decoder_input[:, 0], decoder_input[:, 1:] = Vocabulary.EOS, labels[:, :-1]
        return source, decoder_input, labels

    def _filtered(self, texts: NDArray[np.int64], masks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """A sentinel for each masked segment, and `</s>` at the end."""
        starts = masks.copy()
        starts[:, 1:] &= ~masks[:, :-1]
        sentinels = np.cumsum(starts, axis=1) + (self._first_sentinel_id - 1)
        kept = np.where(starts, sentinels, texts)[~masks | starts].reshape(len(texts), -1)
        return np.concatenate([kept, np.full((len(texts), 1), Vocabulary.EOS)], axis=1)

    def _mask(self) -> NDArray[np.bool_]:
        kept = self._segments(self._num_tokens - self._num_noise)
        noise = self._segments(self._num_noise)
        lengths = np.stack([kept, noise], axis=1).ravel()
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)

    def _segments(self, num_tokens: int) -> NDArray[np.int64]:
        begins = np.arange(num_tokens - 1) < self._num_spans - 1
        self._generator.shuffle(begins)
        cuts = np.flatnonzero(begins) + 1
        return np.diff(cuts, prepend=0, append=num_tokens)

    def _masks(self, num_texts: int) -> NDArray[np.bool_]:
        kept = self._segments_of_all(num_texts, self._num_tokens - self._num_noise)
        noise = self._segments_of_all(num_texts, self._num_noise)
        lengths = np.stack([kept, noise], axis=2).ravel()
        masks = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)  # every text has as many segments
        return masks.reshape(num_texts, self._num_tokens)

    def _segments_of_all(self, num_texts: int, num_tokens: int) -> NDArray[np.int64]:
        """Lengths of segments [texts, spans]: cuts at the places of the least of random numbers."""
        num_cuts = self._num_spans - 1
        numbers = self._generator.random((num_texts, num_tokens - 1), dtype=np.float32)
        cuts = np.sort(np.argpartition(numbers, num_cuts - 1, axis=1)[:, :num_cuts], axis=1) + 1
        return np.diff(cuts, axis=1, prepend=0, append=num_tokens)
