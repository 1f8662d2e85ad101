"""A token table moved from one vocabulary to another: pieces and tags taken away or added."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
"""How a new language tag's row begins: as the mean of the rows of its language's text, or at random."""


@dataclass(frozen=True, kw_only=True)
class VocabularyChange:
    """What became of a token table."""

    table: Tensor
    """[new.num_rows, width], in the old table's dtype, in memory of its own."""
    config: DeltaLMConfig
    """The old configuration with the new number of rows and the new ids of `<mask>` and sentinels."""
    old_rows: Tensor
    """[new.num_rows] int64: the row of the old table that each row was moved from; -1 for a new row."""
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
    old_tags, new_tags, tag_text = old_tags or {}, new_tags or {}, tag_text or {}
    _check(table, config, old, new, pieces, old_tags, new_tags)
    rows = _Rows(table, new.num_rows)
    rows.move(range(FIRST_ORDINARY_PIECE + 1), range(FIRST_ORDINARY_PIECE + 1))
    kept = _move_pieces(rows, old, new, pieces)
    has_mask = config.mask_id < len(table)
    if has_mask:
        rows.move([new.mask_id], [old.mask_id])
    num_sentinels = min(config.num_sentinels, new.num_sentinels)
    rows.move(*(range(v.first_sentinel_id, v.first_sentinel_id + num_sentinels) for v in (new, config)))
    kept_tags = [language for language in new_tags if language in old_tags]
    rows.move([new_tags[name] for name in kept_tags], [old_tags[name] for name in kept_tags])
    rows.move(*_unused_rows(table, config, old, new, old_tags))
    summary = (
        f"rows moved: {kept:,} of {old.num_pieces:,} pieces, {'' if has_mask else 'no '}<mask>, "
        f"{num_sentinels} of {config.num_sentinels} sentinels, {len(kept_tags)} of {len(old_tags)} tags"
    )

    for language, tag in new_tags.items():
        if language not in old_tags and tag_start == "mean":
            rows.average(tag, f"tag of {language}", *_text_of(language, tag_text, old))
    rows.draw(_names(new, new_tags), seed)
    changed = dataclasses.replace(
        config,
        vocabulary_rows=new.num_rows,
        mask_id=new.mask_id,
        first_sentinel_id=new.first_sentinel_id,
        num_sentinels=new.num_sentinels,
    )
    return VocabularyChange(
        table=rows.table, config=changed, old_rows=rows.old_rows, report=(summary, *rows.report())
    )


@dataclass
class _Rows:
    """A table in the making."""

    old: Tensor
    num_rows: int
    lines: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table = torch.zeros(self.num_rows, self.old.shape[1], dtype=self.old.dtype)
        self.old_rows = torch.full((self.num_rows,), -1)

    def move(self, new: Iterable[int], old: Iterable[int]) -> None:
        """Copy these rows of the old table to these."""
        places, origins = (torch.tensor(list(numbers), dtype=torch.int64) for numbers in (new, old))
        self.table[places] = self.old[origins].detach()
        self.old_rows[places] = origins

    def average(self, row: int, name: str, ids: Sequence[int], counts: Sequence[int], of: str) -> None:
        """Fill a row with the mean of old rows, weighted by counts."""
        weights = torch.tensor(counts, dtype=torch.float64)
        vectors = self.old[torch.tensor(ids, dtype=torch.int64)].detach().double()
        self.table[row] = (weights @ vectors / weights.sum()).to(self.table.dtype)
        self.lines[row] = f"{name}: mean of {of}"

    def draw(self, names: Mapping[int, str], seed: int) -> None:
        """Fill the rows that are left with random numbers."""
        left = [row for row in torch.nonzero(self.old_rows < 0).flatten().tolist() if row not in self.lines]
        generator = torch.Generator().manual_seed(seed)
        width = self.table.shape[1]
        drawn = torch.randn(len(left), width, generator=generator) * width**-0.5
        self.table[torch.tensor(left, dtype=torch.int64)] = drawn.to(self.table.dtype)
        for row in left:
            self.lines[row] = f"{names.get(row, 'unused')}: from N(0, 1/width), seed {seed}"

    def report(self) -> list[str]:
        """A line for each row that was not moved, by row."""
        norms = self.table.float().norm(dim=1)
        return [f"new row {row}, {line}, norm {norms[row]:.3f}" for row, line in sorted(self.lines.items())]


def _move_pieces(rows: _Rows, old: Vocabulary, new: Vocabulary, pieces: Sequence[PieceOrigin] | None) -> int:
    """Fill the rows of ordinary pieces; how many pieces were kept, the special ones among them."""
    if pieces is None:
        rows.move(range(FIRST_ORDINARY_PIECE + 1, new.mask_id), range(FIRST_ORDINARY_PIECE + 1, old.mask_id))
        return old.num_pieces
    ordinary = list(enumerate(pieces))[FIRST_ORDINARY_PIECE:]
    kept = [(number, origin.numbers[0]) for number, origin in ordinary if not origin.is_new]
    rows.move([number + 1 for number, _ in kept], [number + 1 for _, number in kept])
    texts = {origin.numbers[0]: origin.text for origin in pieces if not origin.is_new}
    for number, origin in ordinary:
        if origin.is_new:
            ids = old.ids_of_pieces(origin.numbers).tolist()
            parts = " ".join(texts.get(part, f"piece {part}") for part in origin.numbers)
            rows.average(number + 1, f"piece {origin.text}", ids, [1] * len(ids), f"{parts} (ids {ids})")
    return len(kept) + FIRST_ORDINARY_PIECE


def _unused_rows(
    table: Tensor, config: DeltaLMConfig, old: Vocabulary, new: Vocabulary, old_tags: Mapping[str, int]
) -> tuple[list[int], list[int]]:
    """Rows of both tables that no token has, as many of each as there are of the fewer."""
    sentinels = range(config.first_sentinel_id, config.first_sentinel_id + config.num_sentinels)
    tokens = {old.mask_id, config.mask_id, *sentinels, *old_tags.values()}
    old_unused = [row for row in range(old.mask_id, len(table)) if row not in tokens and not old.is_tag(row)]
    new_unused = [
        *range(new.mask_id + 1, new.first_sentinel_id),
        *range(new.first_tag_id + new.num_tags, new.num_rows),
    ]
    count = min(len(old_unused), len(new_unused))
    return new_unused[:count], old_unused[:count]


def _text_of(
    language: str, tag_text: Mapping[str, NDArray[np.int64]], old: Vocabulary
) -> tuple[list[int], list[int], str]:
    """Ids of the pieces in text of a language, how often each occurs, and what that is in words."""
    counts = np.asarray(tag_text.get(language, ()), dtype=np.int64)[: old.mask_id]
    ids = FIRST_ORDINARY_PIECE + 1 + np.flatnonzero(counts[FIRST_ORDINARY_PIECE + 1 :])
    if not len(ids):
        raise UserError(
            f"there is no text in {language} to start its tag from: give some, or start tags at random"
        )
    of = f"{len(ids):,} pieces in {counts[ids].sum():,} tokens of its text"
    return ids.tolist(), counts[ids].tolist(), of


def _names(new: Vocabulary, new_tags: Mapping[str, int]) -> dict[int, str]:
    sentinels = {new.sentinel_id(index): f"<mask_{index}>" for index in range(new.num_sentinels)}
    tags = {row: f"tag of {language}" for language, row in new_tags.items()}
    return {new.mask_id: "<mask>", **sentinels, **tags}


def _check(
    table: Tensor,
    config: DeltaLMConfig,
    old: Vocabulary,
    new: Vocabulary,
    pieces: Sequence[PieceOrigin] | None,
    old_tags: Mapping[str, int],
    new_tags: Mapping[str, int],
) -> None:
    """ValueError where the arguments of `change_vocabulary` do not fit together."""
    rows = len(table)
    if (rows, table.shape[1]) != (config.vocabulary_rows, config.width):
        raise ValueError(f"a table {list(table.shape)} is not that of {config}")
    if rows < old.mask_id:
        raise ValueError(f"{old.num_pieces} pieces do not fit into a table of {rows} rows")
    if config.mask_id < rows and config.mask_id != old.mask_id:
        raise ValueError(f"<mask> is {config.mask_id} to the model and {old.mask_id} to its vocabulary")
    if config.num_sentinels and config.first_sentinel_id <= old.num_pieces:
        raise ValueError(f"sentinels from {config.first_sentinel_id} among {old.num_pieces} pieces")
    if new.num_pieces != (old.num_pieces if pieces is None else len(pieces)):
        raise ValueError(f"no origin is given of {new.num_pieces} pieces")
    if not all(old.num_pieces < row < rows for row in old_tags.values()):
        raise ValueError(f"the tags {dict(old_tags)} have no rows of their own in a table of {rows}")
    if sorted(new_tags.values()) != list(range(new.first_tag_id, new.first_tag_id + new.num_tags)):
        raise ValueError(f"the new vocabulary has {new.num_tags} tags, not {dict(new_tags)}")
