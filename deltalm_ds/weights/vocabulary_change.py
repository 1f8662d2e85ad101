"""A token table moved from one vocabulary to another: pieces and tags taken away or added."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.text.piece_models import PieceOrigin
from deltalm_ds.text.vocabulary import FIRST_ORDINARY_PIECE, Vocabulary

TagStart = Literal["mean", "normal"]
"""How a new language tag's row begins: as the mean of the rows of its language's text, or as random numbers."""


@dataclass(frozen=True, kw_only=True)
class VocabularyChange:
    """What became of a token table."""

    table: Tensor
    """[new.num_rows, width], in the old table's dtype, in memory of its own."""
    config: DeltaLMConfig
    """The old configuration with the new number of rows and the new ids of `<mask>` and sentinels."""
    report: tuple[str, ...]
    """What was moved, and a line for each new row: its token, the rule that made it, its norm."""


def change_vocabulary(
    table: Tensor,
    config: DeltaLMConfig,
    old: Vocabulary,
    new: Vocabulary,
    *,
    pieces: Sequence[PieceOrigin] | None = None,
    old_tags: Mapping[str, int] | None = None,
    new_tags: Mapping[str, int] | None = None,
    tag_start: TagStart = "mean",
    tag_text: Mapping[str, NDArray[np.int64]] | None = None,
    seed: int = 0,
) -> VocabularyChange:
    """Move the rows of a DeltaLM's token table to where another vocabulary has their tokens.

    Kept pieces, special tokens, <mask>, sentinels and tags take their rows along. A new piece's row is the
    mean of the rows of the pieces that the old tokenizer cut it into. Rows that the old table lacks
    (sentinels of a model tuned with fairseq, say) are drawn from N(0, 1 / width), and so are rows beyond all
    ids where the old table has not enough of them to move.

    Args:
        table: [rows, width] the model's own. It may end before `old`'s last id, as a model's does that was
            tuned with fairseq: it has no sentinels then, and `config` says so.
        config: the model's own.
        old, new: what ids mean before and after.
        pieces: where each piece of the new tokenizer comes from (`text.piece_models.piece_origins`), by its
            number; None where the tokenizer stays.
        old_tags: language → row of its tag in `table`.
        new_tags: language → id of its tag in `new`, for all tags that it is to have.
        tag_start: how tags of new languages begin.
        tag_text: for "mean", by new language: how often each id of `old` occurs in text of that language
            (`np.bincount` of it), [ids].
        seed: names the random rows.

    ValueError where arguments do not fit together; UserError for a new language without text.
    """
    raise NotImplementedError
