"""Token tables that follow their vocabulary."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.text.piece_models import PieceOrigin
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights.vocabulary_change import change_vocabulary

OLD = Vocabulary(
    12, num_sentinels=3, num_tags=2
)  # ids 0..12, <mask> 13, sentinels 14..16, tags 17, 18: 24 rows
WIDTH = 4
OLD_TAGS = {"fr": 17, "de": 18}


def config(vocabulary: Vocabulary, **changes: int) -> DeltaLMConfig:
    ids = {
        "vocabulary_rows": vocabulary.num_rows,
        "mask_id": vocabulary.mask_id,
        "first_sentinel_id": vocabulary.first_sentinel_id,
        "num_sentinels": vocabulary.num_sentinels,
    }
    return DeltaLMConfig(
        width=WIDTH, feed_forward_width=8, num_heads=2, num_encoder_layers=1, **{**ids, **changes}
    )


def table(rows: int) -> Tensor:
    """Every row full of its own number."""
    return torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, WIDTH).clone()


def kept(*numbers: int) -> list[PieceOrigin]:
    return [PieceOrigin(f"p{number}", (number,), is_new=False) for number in (0, 1, 2, *numbers)]


def first_column(changed: Tensor) -> list[float]:
    return changed[:, 0].tolist()


def test_the_same_vocabulary_changes_nothing() -> None:
    same = change_vocabulary(table(24), config(OLD), OLD, OLD, old_tags=OLD_TAGS, new_tags=OLD_TAGS)
    torch.testing.assert_close(same.table, table(24), rtol=0, atol=0)
    assert same.config == config(OLD)
    assert same.report == ("rows moved: 12 of 12 pieces, <mask>, 3 of 3 sentinels, 2 of 2 tags",)


def test_pieces_taken_away() -> None:
    new = Vocabulary(6, num_sentinels=2, num_tags=1)  # <mask> 7, sentinels 8, 9, tag 10, unused 11..15
    source = table(24)
    changed = change_vocabulary(
        source, config(OLD), OLD, new, pieces=kept(3, 8, 11), old_tags=OLD_TAGS, new_tags={"de": 10}
    )
    assert first_column(changed.table) == [0, 1, 2, 3, 4, 9, 12, 13, 14, 15, 18, 19, 20, 21, 22, 23]
    assert changed.config == dataclasses.replace(
        config(OLD), vocabulary_rows=16, mask_id=7, first_sentinel_id=8, num_sentinels=2
    )
    assert changed.report == ("rows moved: 6 of 12 pieces, <mask>, 2 of 3 sentinels, 1 of 2 tags",)
    assert changed.old_rows.tolist() == first_column(changed.table)
    changed.table.zero_()
    assert source.sum() > 0


def test_new_pieces_are_the_mean_of_their_old_cut() -> None:
    new = Vocabulary(14, num_sentinels=3)
    pieces = [*kept(*range(3, 12)), PieceOrigin("▁xy", (4, 10, 4), True), PieceOrigin("漢", (0,), True)]
    changed = change_vocabulary(table(24), config(OLD), OLD, new, pieces=pieces)
    assert first_column(changed.table) == [
        *range(13),
        (5 + 11 + 5) / 3,
        3,
        13,
        14,
        15,
        16,
        19,
        20,
        21,
        22,
        23,
    ]
    assert changed.old_rows.tolist() == [*range(13), -1, -1, *range(13, 17), *range(19, 24)]
    assert changed.report[1:] == (
        "new row 13, piece ▁xy: mean of p4 p10 p4 (ids [5, 11, 5]), norm 14.000",
        "new row 14, piece 漢: mean of p0 (ids [3]), norm 6.000",
    )


def test_a_tag_starts_from_the_text_of_its_language() -> None:
    new = dataclasses.replace(OLD, num_tags=3)
    counts = np.bincount([0, 2, 3, 5, 5, 5, 9, 14])  # specials and sentinels are no text
    changed = change_vocabulary(
        table(24),
        config(OLD),
        OLD,
        new,
        old_tags=OLD_TAGS,
        new_tags={"de": 17, "hi": 18, "fr": 19},
        tag_text={"hi": counts},
    )
    assert first_column(changed.table)[17:20] == [18, (3 * 5 + 9) / 4, 17]
    assert changed.report == (
        "rows moved: 12 of 12 pieces, <mask>, 3 of 3 sentinels, 2 of 2 tags",
        "new row 18, tag of hi: mean of 2 pieces in 4 tokens of its text, norm 12.000",
    )


def test_a_tag_of_random_numbers() -> None:
    new = Vocabulary(12, num_sentinels=3, num_tags=1)
    arguments = (table(24), config(OLD), OLD, new)
    first, again = (
        change_vocabulary(*arguments, new_tags={"hi": 17}, tag_start="normal", seed=3) for _ in range(2)
    )
    other = change_vocabulary(*arguments, new_tags={"hi": 17}, tag_start="normal", seed=4)
    assert torch.equal(first.table, again.table)
    assert not torch.equal(first.table[17], other.table[17])
    assert first.report[1] == (
        f"new row 17, tag of hi: from N(0, 1/width), seed 3, norm {first.table[17].norm():.3f}"
    )
    assert [line.split(":")[0] for line in first.report[2:]] == ["new row 23, unused"]


def test_random_rows_have_the_spread_of_a_new_model() -> None:
    wide = torch.zeros(24, 400)
    new = Vocabulary(12, num_sentinels=100)
    shape = dataclasses.replace(config(OLD), width=400)
    drawn = change_vocabulary(wide, shape, OLD, new, seed=1).table[17:114]
    assert drawn.std().item() == pytest.approx(400**-0.5, rel=0.02)
    assert drawn.mean().item() == pytest.approx(0, abs=0.002)


def test_a_table_that_ends_with_the_pieces_grows() -> None:
    """As fairseq's fine-tuning leaves it: no <mask>, no sentinels, no padding."""
    tuned = config(OLD, vocabulary_rows=13, mask_id=13, first_sentinel_id=13, num_sentinels=0)
    new = Vocabulary(13, num_sentinels=2, num_tags=1)
    pieces = [*kept(*range(3, 12)), PieceOrigin("new", (5,), True)]
    changed = change_vocabulary(
        table(13), tuned, OLD, new, pieces=pieces, new_tags={"fr": 17}, tag_text={"fr": np.bincount([4, 6])}
    )
    assert first_column(changed.table)[:14] == [*range(13), 6]
    assert first_column(changed.table)[17] == 5
    assert changed.config == dataclasses.replace(
        tuned, vocabulary_rows=24, mask_id=14, first_sentinel_id=15, num_sentinels=2
    )
    rows = [line.split(":")[0] for line in changed.report]
    assert rows == [
        "rows moved",
        "new row 13, piece new",
        "new row 14, <mask>",
        "new row 15, <mask_0>",
        "new row 16, <mask_1>",
        "new row 17, tag of fr",
        *(f"new row {row}, unused" for row in range(18, 24)),
    ]
    assert "no <mask>" in changed.report[0]


def test_tags_that_stand_where_the_vocabulary_has_none() -> None:
    """fairseq appends its language tokens to the pieces."""
    tuned = config(OLD, vocabulary_rows=15, mask_id=15, first_sentinel_id=15, num_sentinels=0)
    new = Vocabulary(12, num_sentinels=0, num_tags=2)
    changed = change_vocabulary(
        table(15), tuned, OLD, new, old_tags={"fr": 13, "de": 14}, new_tags={"de": 14, "fr": 15}
    )
    assert first_column(changed.table)[14:] == [14, 13]
    assert changed.report[1].startswith("new row 13, <mask>: from N(0, 1/width)")


def test_sentinels_elsewhere_than_behind_mask() -> None:
    gap = Vocabulary(12, num_sentinels=3, first_sentinel_id=16)
    changed = change_vocabulary(table(24), config(gap), gap, Vocabulary(12, num_sentinels=3))
    assert first_column(changed.table)[13:] == [13, 16, 17, 18, 14, 15, 19, 20, 21, 22, 23]


def test_half_precision_stays() -> None:
    changed = change_vocabulary(table(24).bfloat16(), config(OLD), OLD, Vocabulary(12, num_sentinels=12))
    assert changed.table.dtype == torch.bfloat16


def test_arguments_that_do_not_fit_together() -> None:
    whole = (table(24), config(OLD), OLD)
    with pytest.raises(UserError, match="no text in hi"):
        change_vocabulary(*whole, dataclasses.replace(OLD, num_tags=1), new_tags={"hi": 17})
    with pytest.raises(ValueError, match=r"a table \[23, 4\]"):
        change_vocabulary(table(23), config(OLD), OLD, OLD)
    with pytest.raises(ValueError, match="do not fit into a table of 24 rows"):
        change_vocabulary(table(24), config(OLD), Vocabulary(30), OLD)
    with pytest.raises(ValueError, match="<mask> is 13 to the model and 12"):
        change_vocabulary(*whole[:2], Vocabulary(11), OLD)
    with pytest.raises(ValueError, match="no origin is given of 6 pieces"):
        change_vocabulary(*whole, Vocabulary(6), pieces=kept(3))
    with pytest.raises(ValueError, match="no rows of their own"):
        change_vocabulary(*whole, OLD, old_tags={"fr": 24}, new_tags=OLD_TAGS)
    with pytest.raises(ValueError, match="has 2 tags"):
        change_vocabulary(*whole, OLD, old_tags=OLD_TAGS, new_tags={"fr": 17})
