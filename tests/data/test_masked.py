from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalm_ds.data.masked import TokenMasking
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(num_pieces=60)
MASK = VOCABULARY.mask_id
MASKING = TokenMasking(0.15)

ids = st.integers(0, VOCABULARY.first_sentinel_id + 3)
keys = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40))


def test_exact_arrays() -> None:
    tokens = np.array([0, *range(10, 30), 2], dtype=np.int32)
    example = TokenMasking(0.3).mask(tokens, VOCABULARY, (7, 2))
    assert example.places.tolist() == [6, 7, 8, 12, 14, 19]
    assert example.labels.tolist() == [15, 16, 17, 21, 23, 28]
    # 16 and 23 stay, 17 becomes another piece
    assert example.source[example.places].tolist() == [MASK, 16, 46, MASK, 23, MASK]
    assert {part.dtype for part in example} == {np.dtype(np.int32)}


@given(st.lists(ids, max_size=80), st.floats(0.01, 0.99), keys)
def test_only_pieces_are_hidden_and_all_else_stays(
    tokens: list[int], share: float, key: tuple[int, int]
) -> None:
    text = np.array(tokens, dtype=np.int32)
    example = TokenMasking(share).mask(text, VOCABULARY, key)
    restored = example.source.copy()
    restored[example.places] = example.labels
    assert restored.tolist() == tokens
    assert text.tolist() == tokens  # the input is left as it is
    assert np.all(np.diff(example.places) > 0)
    assert all(map(VOCABULARY.is_piece, example.labels.tolist()))
    hidden = example.source[example.places].tolist()
    assert all(token == MASK or VOCABULARY.is_piece(token) for token in hidden)
    num_pieces = sum(map(VOCABULARY.is_piece, tokens))
    assert len(example.places) - share * num_pieces < 1 or len(example.places) == 1
    assert share * num_pieces - len(example.places) < 1
    assert bool(len(example.places)) == bool(num_pieces)
    again = TokenMasking(share).mask(text, VOCABULARY, key)
    assert all(np.array_equal(*parts) for parts in zip(example, again, strict=True))


def test_special_tokens_are_never_chosen() -> None:
    specials = [0, 1, 2, 3, MASK, *range(MASK + 1, VOCABULARY.num_rows)]
    example = TokenMasking(0.99).mask(np.array([*specials, 4, 60]), VOCABULARY, (1, 1))
    assert example.labels.tolist() == [4, 60]
    assert len(TokenMasking(0.99).mask(np.array(specials), VOCABULARY, (1, 1)).labels) == 0


def test_shares_are_xlms() -> None:
    tokens = np.array([0, *([20] * 50), 2, *([20] * 47), 2], dtype=np.int32)
    examples = [MASKING.mask(tokens, VOCABULARY, (5, number)) for number in range(2000)]
    num_chosen = sum(len(example.places) for example in examples)
    assert num_chosen / (2000 * 97) == pytest.approx(0.15, abs=0.001)  # rounding is drawn too
    hidden = np.concatenate([example.source[example.places] for example in examples])
    deviation = 5 * num_chosen**0.5
    assert abs((hidden == MASK).sum() - 0.8 * num_chosen) < 0.4 * deviation
    # One random piece in 57 is the token that was there.
    assert abs((hidden == 20).sum() - (0.1 + 0.1 / 57) * num_chosen) < 0.3 * deviation
    others = hidden[(hidden != MASK) & (hidden != 20)]
    assert set(others.tolist()) == set(range(4, 61)) - {20}
    places = np.bincount(np.concatenate([example.places for example in examples]), minlength=len(tokens))
    assert places[[0, 51, 99]].tolist() == [0, 0, 0]
    ordinary = np.delete(places, [0, 51, 99])
    assert np.all(abs(ordinary - 300) < 5 * 255**0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(UserError, match="masked share"):
        TokenMasking(share)
