"""Token ids: how a SentencePiece model's pieces and the special tokens share one embedding table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

ROWS_MULTIPLE = 8
"""The embedding table's rows are padded to a multiple of this."""

UNKNOWN_PIECE, BOS_PIECE, EOS_PIECE = 0, 1, 2
FIRST_ORDINARY_PIECE = 3


_IDS_OF_SPECIAL_PIECES = np.array([3, 0, 2], dtype=np.int32)  # of <unk>, <s>, </s>


@dataclass(frozen=True)
class Vocabulary:
    """The token ids over a SentencePiece model of N pieces whose pieces 0, 1, 2 are <unk>, <s>, </s>.

    0 <s>, 1 <pad>, 2 </s>, 3 <unk>; piece p >= 3 has id p + 1, so ordinary ids are 4..N; N + 1 is <mask>;
    the sentinels <mask_0>, <mask_1>, ... follow, and the language tags of a tuned model behind them. XLM-R's
    250,000 pieces give <mask> 250001, the sentinels 250002..250101 and 250,104 rows, DeltaLM's own table.
    """

    num_pieces: int
    """Pieces of the SentencePiece model, N, its <unk>, <s> and </s> counted."""

    num_sentinels: int = 100
    """How many sentinels there are: the most spans that one sample can have."""

    first_sentinel_id: int = 0
    """Id of <mask_0>. 0 stands for N + 2, and is replaced by it when the vocabulary is made."""

    num_tags: int = 0
    """How many language tags there are."""

    BOS: ClassVar[int] = 0
    PAD: ClassVar[int] = 1
    EOS: ClassVar[int] = 2
    UNK: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.num_pieces <= FIRST_ORDINARY_PIECE:
            raise ValueError(f"num_pieces must be more than {FIRST_ORDINARY_PIECE}, not {self.num_pieces}")
        if self.num_sentinels < 0 or self.num_tags < 0:
            raise ValueError(f"{self.num_sentinels} sentinels and {self.num_tags} tags: there are 0 or more")
        if self.first_sentinel_id == 0:
            object.__setattr__(self, "first_sentinel_id", self.mask_id + 1)
        if self.first_sentinel_id <= self.mask_id:
            raise ValueError(
                f"first_sentinel_id must be above <mask>, {self.mask_id}, not {self.first_sentinel_id}"
            )

    @property
    def mask_id(self) -> int:
        """Id of <mask>, N + 1."""
        return self.num_pieces + 1

    @property
    def first_tag_id(self) -> int:
        """Id of the first language tag, behind the sentinels."""
        return self.first_sentinel_id + self.num_sentinels

    @property
    def num_rows(self) -> int:
        """Rows of the embedding table: all ids, padded to a multiple of 8."""
        num_ids = self.first_tag_id + self.num_tags
        return -(-num_ids // ROWS_MULTIPLE) * ROWS_MULTIPLE

    @property
    def token_dtype(self) -> np.dtype:
        """The dtype of prepared files: uint16 where every row's number fits, else int32."""
        return np.dtype(np.uint16 if self.num_rows <= 1 << 16 else np.int32)

    def sentinel_id(self, index: int) -> int:
        """Id of the sentinel <mask_index>; ValueError outside 0..num_sentinels - 1."""
        if not 0 <= index < self.num_sentinels:
            raise ValueError(f"sentinel {index} is not within 0..{self.num_sentinels - 1}")
        return self.first_sentinel_id + index

    def is_sentinel(self, token_id: int) -> bool:
        """Whether an id is a sentinel's."""
        return self.first_sentinel_id <= token_id < self.first_sentinel_id + self.num_sentinels

    def is_tag(self, token_id: int) -> bool:
        """Whether an id is a language tag's."""
        return self.first_tag_id <= token_id < self.first_tag_id + self.num_tags

    def is_piece(self, token_id: int) -> bool:
        """Whether an id is an ordinary piece's, 4..N (<unk> is not)."""
        return FIRST_ORDINARY_PIECE < token_id <= self.num_pieces

    def ids_of_pieces(self, pieces: npt.ArrayLike) -> np.ndarray:
        """Token ids [n] int32 of SentencePiece numbers [n]: <unk>, <s>, </s> by name, others piece + 1."""
        numbers = np.asarray(pieces, dtype=np.int32)
        ids = numbers + np.int32(1)
        special = np.flatnonzero(numbers < FIRST_ORDINARY_PIECE)
        ids.flat[special] = _IDS_OF_SPECIAL_PIECES[numbers.flat[special]]
        return ids
