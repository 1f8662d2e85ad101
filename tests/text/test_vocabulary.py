"""Token ids."""

from __future__ import annotations

import numpy as np
import pytest

from deltalm_ds.text.vocabulary import Vocabulary


def test_xlmr_gives_the_published_layout() -> None:
    vocabulary = Vocabulary(250_000)
    assert (vocabulary.BOS, vocabulary.PAD, vocabulary.EOS, vocabulary.UNK) == (0, 1, 2, 3)
    assert vocabulary.ids_of_pieces([0, 1, 2, 3, 249_999]).tolist() == [3, 0, 2, 4, 250_000]
    assert vocabulary.mask_id == 250_001
    assert (vocabulary.sentinel_id(0), vocabulary.sentinel_id(99)) == (250_002, 250_101)
    assert vocabulary.num_rows == 250_104
    assert vocabulary.token_dtype == np.int32


def test_first_sentinel_is_a_setting() -> None:
    vocabulary = Vocabulary(250_000, first_sentinel_id=250_004)
    assert (vocabulary.sentinel_id(0), vocabulary.num_rows) == (250_004, 250_104)
    with pytest.raises(ValueError, match="250001"):
        Vocabulary(250_000, first_sentinel_id=250_001)


@pytest.mark.parametrize("num_pieces", [4, 999, 1000, 1001])
def test_every_id_is_of_one_kind_and_rows_cover_all(num_pieces: int) -> None:
    vocabulary = Vocabulary(num_pieces, num_sentinels=7)
    pieces = [i for i in range(vocabulary.num_rows) if vocabulary.is_piece(i)]
    sentinels = [i for i in range(vocabulary.num_rows) if vocabulary.is_sentinel(i)]
    assert pieces == list(range(4, num_pieces + 1))
    assert sentinels == list(range(num_pieces + 2, num_pieces + 9))
    assert vocabulary.num_rows % 8 == 0
    assert vocabulary.num_rows - sentinels[-1] <= 8


@pytest.mark.parametrize(("num_pieces", "dtype"), [(65_434, np.uint16), (65_435, np.int32)])
def test_dtype_holds_every_row(num_pieces: int, dtype: type) -> None:
    assert Vocabulary(num_pieces).token_dtype == dtype
    assert np.iinfo(dtype).max >= Vocabulary(num_pieces).num_rows - 1


@pytest.mark.parametrize(
    "bad", [{"num_pieces": 3}, {"num_pieces": 100, "num_sentinels": -1}, {"num_pieces": 100, "num_tags": -1}]
)
def test_impossible_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be|0 or more"):
        Vocabulary(**bad)


def test_tags_stand_behind_the_sentinels() -> None:
    vocabulary = Vocabulary(1000, num_sentinels=7, num_tags=3)
    assert vocabulary.first_tag_id == vocabulary.sentinel_id(6) + 1
    tags = [i for i in range(vocabulary.num_rows) if vocabulary.is_tag(i)]
    assert tags == list(range(vocabulary.first_tag_id, vocabulary.first_tag_id + 3))
    assert tags[-1] < vocabulary.num_rows


def test_sentinels_out_of_range_are_refused() -> None:
    for index in (-1, 100):
        with pytest.raises(ValueError, match=str(index)):
            Vocabulary(1000).sentinel_id(index)
