"""Span corruption of one side of a pair, the other left whole (Chi et al., "mT6", 2021, section 3.1).

mT6 calls it translation span corruption. The spans come from one language, so what the decoder has to say is
a text's own order of spans, and all of the other side is there to say it from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.objectives import Example, MaskKey, SpanCorruption, check_counts
from deltalm_ds.data.pair_items import split_pair
from deltalm_ds.text.vocabulary import Vocabulary

_SHORTEST_OTHER_SIDE = 2  # b </s>
_SIDE_COUNTER = (0, 0, 0, 1)  # far from the words that place the spans


@dataclass(frozen=True)
class OneSideCorruption:
    """Each side of a pair is as likely to be the corrupted one."""

    corruption: SpanCorruption
    """What is done to that side."""

    def capacity(self, max_source_length: int) -> int:
        """The most tokens of a pair: corruption never lengthens a side, T5's form adds `</s>`."""
        return max_source_length - (1 if self.corruption.form == "t5" else 0)

    def check(self, name: str, max_source_length: int, max_target_length: int, num_sentinels: int) -> None:
        """UserError if the longest side needs more sentinels, or places of the decoder, than there are."""
        longest_side = self.capacity(max_source_length) - _SHORTEST_OTHER_SIDE
        counts = (longest_side, max_source_length, max_target_length, num_sentinels)
        check_counts(self.corruption, f"{name} of sides", *counts)

    def corrupt(self, tokens: NDArray[np.int32], first_sentinel_id: int, key: MaskKey) -> Example:
        """The training example of one pair, `<s> source </s> target </s>` [tokens].

        `key` names the masks and the side; the arguments are those of `SpanCorruption.corrupt`.
        """
        source, target = split_pair(tokens)
        words = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=_SIDE_COUNTER).random_raw(1)
        # A target without a piece, `</s>` alone, has nothing to mask.
        corrupts_target = bool(words[0] >> np.uint64(63)) and len(target) > 1
        corrupted = self.corruption.corrupt(target if corrupts_target else source, first_sentinel_id, key)
        # T5's form ends the whole source with `</s>`, not one side of it.
        end = [] if self.corruption.form == "group" else [Vocabulary.EOS]
        side = corrupted.source[: len(corrupted.source) - len(end)]
        parts = (source, side) if corrupts_target else (side, target)
        return corrupted._replace(source=np.concatenate([*parts, np.array(end, dtype=np.int32)]))
