"""Masked language modelling: some tokens of a text are hidden, and an encoder predicts each in its place.

BERT's masking (Devlin et al., 2019, section 3.1) as in XLM (Conneau & Lample, 2019) and XLM-R: of the chosen
tokens 80 % become `<mask>`, 10 % a random piece, 10 % stay. On monolingual text it is XLM's MLM, on pairs,
both sides in one text, its TLM. Only ordinary pieces are chosen, never `<s>`, `</s>`, `<unk>` or the like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.objectives import MaskKey
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary

_BECOMES_MASK, _BECOMES_PIECE = 0.8, 0.1


class MaskedExample(NamedTuple):
    """What an encoder is trained on; int32 each."""

    source: NDArray[np.int32]
    """[source] tokens that it reads."""
    places: NDArray[np.int32]
    """[target] places in the source, ascending, where it predicts."""
    labels: NDArray[np.int32]
    """[target] the tokens of the text there."""


@dataclass(frozen=True)
class TokenMasking:
    """Which tokens are hidden. UserError at construction for an impossible share."""

    share: float
    """Share of the ordinary pieces that is predicted, within 0..1."""

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise UserError(f"a masked share lies between 0 and 1, not at {self.share}")

    def mask(self, tokens: NDArray[np.integer], vocabulary: Vocabulary, key: MaskKey) -> MaskedExample:
        """The training example of a text [tokens], its masks named by `key`.

        Of n ordinary pieces ⌊share · n + u⌋ are chosen, u uniform within 0..1, and at least one.
        """
        source = tokens.astype(np.int32)
        pieces = np.flatnonzero((source > Vocabulary.UNK) & (source <= vocabulary.num_pieces))
        words = np.random.Philox(key=np.array(key, dtype=np.uint64)).random_raw(1 + 3 * len(pieces))
        first, ranks, fates, others = words[:1], *words[1:].reshape(3, -1)
        num_chosen = int(self.share * len(pieces) + _fractions(first)[0])
        num_chosen = min(max(num_chosen, 1), len(pieces))
        # A uniform subset is where the least of the words stand.
        chosen = np.sort(np.argsort(ranks, kind="stable")[:num_chosen])
        places = pieces[chosen]
        labels = source[places]
        fate = _fractions(fates[chosen])
        num_ordinary = vocabulary.num_pieces - Vocabulary.UNK
        random_pieces = (others[chosen] % np.uint64(num_ordinary)).astype(np.int32) + Vocabulary.UNK + 1
        source[places] = np.where(
            fate < _BECOMES_MASK,
            vocabulary.mask_id,
            np.where(fate < _BECOMES_MASK + _BECOMES_PIECE, random_pieces, labels),
        )
        return MaskedExample(source, places.astype(np.int32), labels)


def _fractions(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) of 64-bit words."""
    return (words >> np.uint64(11)) * 2.0**-53
