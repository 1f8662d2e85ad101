from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalm_ds.data.objectives import CorruptionForm, Example, SpanCorruption
from deltalm_ds.data.one_side import OneSideCorruption
from deltalm_ds.errors import UserError

FIRST_SENTINEL = 500
GROUP = OneSideCorruption(SpanCorruption(0.5, 3.0, "group"))
forms = st.sampled_from(["group", "t5"])
keys = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40))


def made_pair(source_text: int, target_text: int) -> np.ndarray:
    """Source ids from 10, target ids from 210."""
    source = [0, *range(10, 10 + source_text), 2]
    return np.array([*source, *range(210, 210 + target_text), 2], dtype=np.int32)


def whole(example: Example) -> list[int]:
    """The source with every sentinel replaced by its span (the group's form)."""
    spans: dict[int, list[int]] = {}
    for token in [*example.decoder_input[:1].tolist(), *example.labels.tolist()]:
        if token >= FIRST_SENTINEL:
            spans[token] = last = []
        else:
            last.append(token)
    return [token for place in example.source.tolist() for token in spans.get(place, [place])]


def test_exact_arrays() -> None:
    pair = made_pair(6, 5)
    first, second = (GROUP.corrupt(pair, FIRST_SENTINEL, (7, number)) for number in (0, 3))
    assert [part.tolist() for part in first] == [
        [0, 10, 11, 12, 13, 14, 15, 2, 210, 500, 214, 2],
        [500, 211, 212],
        [211, 212, 213],
    ]
    assert [part.tolist() for part in second] == [
        [0, 500, 14, 15, 2, 210, 211, 212, 213, 214, 2],
        [500, 10, 11, 12],
        [10, 11, 12, 13],
    ]


@given(st.integers(1, 40), st.integers(1, 40), keys)
def test_one_side_is_whole_and_the_text_can_be_put_together_again(
    source_text: int, target_text: int, key: tuple[int, int]
) -> None:
    pair = made_pair(source_text, target_text)
    example = GROUP.corrupt(pair, FIRST_SENTINEL, key)
    assert whole(example) == pair.tolist()
    masked = [token for token in example.labels.tolist() if token < FIRST_SENTINEL]
    sides = {token >= 210 for token in masked if token != 2 and token != 0}
    assert len(sides) <= 1
    side_length = [source_text + 2, target_text + 1]
    assert len(masked) in [max(length // 2, 1) for length in side_length]
    again = GROUP.corrupt(pair, FIRST_SENTINEL, key)
    assert all(np.array_equal(*parts) for parts in zip(example, again, strict=True))


def test_each_side_is_drawn_half_of_the_time() -> None:
    pair = made_pair(9, 9)
    examples = [GROUP.corrupt(pair, FIRST_SENTINEL, (3, number)) for number in range(2000)]
    of_target = sum(example.source[1] == 10 and example.source[9] == 18 for example in examples)
    assert abs(of_target - 1000) < 5 * 500**0.5  # five standard deviations


def test_a_target_without_a_piece_is_never_the_side() -> None:
    for number in range(50):
        example = GROUP.corrupt(made_pair(4, 0), FIRST_SENTINEL, (3, number))
        assert len(example.labels)
        assert example.source[-1] == 2


@given(st.integers(1, 40), st.integers(1, 40), keys)
def test_t5s_form_ends_the_source_and_the_target_once(
    source_text: int, target_text: int, key: tuple[int, int]
) -> None:
    t5 = OneSideCorruption(SpanCorruption(0.5, 3.0, "t5"))
    example = t5.corrupt(made_pair(source_text, target_text), FIRST_SENTINEL, key)
    assert example.source[-1] == example.labels[-1] == example.decoder_input[0] == 2
    sentinels = [token for token in example.source.tolist() if token >= FIRST_SENTINEL]
    assert sentinels == [token for token in example.labels.tolist() if token >= FIRST_SENTINEL]
    source = example.source[:-1].tolist()
    sides = (made_pair(source_text, target_text)[: source_text + 2], range(210, 210 + target_text))
    assert source[: source_text + 2] == sides[0].tolist() or source[-target_text - 1 :] == [*sides[1], 2]


@given(st.integers(16, 80), st.integers(0, 80), forms, keys)
def test_a_pair_of_the_capacity_fits(
    max_source_length: int, share: int, form: CorruptionForm, key: tuple[int, int]
) -> None:
    objective = OneSideCorruption(SpanCorruption(0.5, 3.0, form))
    text = objective.capacity(max_source_length) - 3
    source_text = min(max(share, 1), text - 1)
    example = objective.corrupt(made_pair(source_text, text - source_text), FIRST_SENTINEL, key)
    assert len(example.source) <= max_source_length


def test_more_spans_than_sentinels_say_what_to_do() -> None:
    GROUP.check("one_side", 512, 512, 85)
    with pytest.raises(UserError, match=r"one_side of sides of 510 tokens .* needs 85 sentinels and the "):
        GROUP.check("one_side", 512, 512, 84)
    GROUP.check("one_side", 512, 339, 100)
    with pytest.raises(UserError, match=r"targets of 339 tokens, above max_target_length 338: lower"):
        GROUP.check("one_side", 512, 338, 100)
