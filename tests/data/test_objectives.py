from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltalm_ds.data.objectives import Example, SpanCorruption, check_objective
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary

FIRST_SENTINEL = 100_000

texts = st.lists(st.integers(4, 60_000), min_size=2, max_size=600)
keys = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
objectives = st.builds(
    SpanCorruption,
    st.floats(0.02, 0.5),
    st.floats(1.0, 9.0),
    st.sampled_from(["group", "t5"]),
)


def whole_target(example: Example, form: str) -> list[int]:
    if form == "group":
        return [*example.decoder_input[:1].tolist(), *example.labels.tolist()]
    return example.labels.tolist()


def spans_of(target: list[int]) -> list[list[int]]:
    spans: list[list[int]] = []
    for token in target:
        if token >= FIRST_SENTINEL:
            spans.append([])
        else:
            spans[-1].append(token)
    return spans


def put_back(source: list[int], spans: list[list[int]]) -> list[int]:
    return [
        token
        for place in source
        for token in (spans[place - FIRST_SENTINEL] if place >= FIRST_SENTINEL else [place])
    ]


@pytest.mark.parametrize(
    ("source_length", "density", "mean", "raw_length", "target_length"),
    [
        (512, 0.15, 3.0, 568, 114),
        (256, 0.15, 3.0, 284, 58),
        (1024, 0.15, 3.0, 1137, 229),
        (512, 0.5, 3.0, 766, 512),
        (64, 0.2, 2.0, 70, 22),
        (64, 0.2, 1.0, 63, 27),
    ],
)
def test_golden_lengths_of_t5s_form(
    source_length: int, density: float, mean: float, raw_length: int, target_length: int
) -> None:
    objective = SpanCorruption(density, mean, "t5")
    assert objective.window_length(source_length) == raw_length
    example = objective.corrupt(np.full(raw_length, 7), FIRST_SENTINEL, (1, 1))
    assert [len(part) for part in example] == [source_length, target_length, target_length]


@pytest.mark.parametrize(
    ("density", "noise", "spans", "source", "target"), [(0.15, 76, 25, 461, 101), (0.5, 256, 85, 341, 341)]
)
def test_golden_lengths_of_the_groups_form(
    density: float, noise: int, spans: int, source: int, target: int
) -> None:
    objective = SpanCorruption(density, 3.0, "group")
    assert objective.window_length(512) == 512
    assert [int(count) for count in objective.lengths(512)] == [noise, spans, source, target, target - 1]
    example = objective.corrupt(np.full(512, 7), FIRST_SENTINEL, (1, 1))
    assert [len(part) for part in example] == [source, target - 1, target - 1]


def test_the_examples_of_a_key_are_the_same_for_ever() -> None:
    text = np.arange(10, 30)
    group = SpanCorruption(0.3, 2.0, "group").corrupt(text, 100, (1, 2))
    assert [part.tolist() for part in group] == [
        [10, 11, 12, 13, 14, 100, 17, 18, 101, 21, 22, 23, 24, 25, 26, 102, 29],
        [100, 15, 16, 101, 19, 20, 102, 27],
        [15, 16, 101, 19, 20, 102, 27, 28],
    ]
    t5 = SpanCorruption(0.3, 2.0, "t5").corrupt(text, 100, (1, 2))
    assert [part.tolist() for part in t5] == [
        [10, 11, 12, 13, 14, 100, 17, 18, 19, 20, 21, 22, 23, 24, 101, 27, 102, 2],
        [2, 100, 15, 16, 101, 25, 26, 102, 28, 29],
        [100, 15, 16, 101, 25, 26, 102, 28, 29, 2],
    ]


@settings(deadline=None)
@given(texts, objectives, keys)
def test_any_text_is_split_without_loss(
    text: list[int], objective: SpanCorruption, key: tuple[int, int]
) -> None:
    example = objective.corrupt(np.array(text, dtype=np.int32), FIRST_SENTINEL, key)
    source, target = example.source.tolist(), whole_target(example, objective.form)
    if objective.form == "t5":
        assert source.pop() == Vocabulary.EOS
        assert target.pop() == Vocabulary.EOS
        assert example.decoder_input.tolist() == [Vocabulary.EOS, *target]
    else:
        assert example.decoder_input.tolist() == target[:-1]
    spans = spans_of(target)
    assert put_back(source, spans) == text

    sentinels = [FIRST_SENTINEL + number for number in range(len(spans))]
    assert [token for token in source if token >= FIRST_SENTINEL] == sentinels
    assert [token for token in target if token >= FIRST_SENTINEL] == sentinels

    is_sentinel = np.array(source) >= FIRST_SENTINEL
    assert not np.any(is_sentinel[1:] & is_sentinel[:-1])  # spans never touch
    assert all(spans)
    assert is_sentinel[-1] == (objective.form == "t5")  # the last token is always masked, or never
    if objective.form == "t5":
        assert not is_sentinel[0]

    counts = objective.lengths(len(text))
    assert sum(len(span) for span in spans) == counts.noise
    assert len(spans) == counts.spans
    assert [len(example.source), len(example.labels)] == [counts.source, counts.decoder]
    assert len(example.decoder_input) == len(example.labels)


@given(st.integers(2, 3000), objectives)
def test_counts_are_the_published_ones(num_tokens: int, objective: SpanCorruption) -> None:
    counts = objective.lengths(num_tokens)
    if objective.form == "group":
        noise = min(max(int(num_tokens * objective.density), 1), num_tokens - 1)
        spans = max(int(noise / objective.mean_span_length), 1)
    else:
        noise = min(max(round(num_tokens * objective.density), 1), num_tokens - 1)
        spans = min(max(round(noise / objective.mean_span_length), 1), num_tokens - noise)
    assert (int(counts.noise), int(counts.spans)) == (noise, spans)


@pytest.mark.parametrize("form", ["group", "t5"])
def test_span_lengths_and_places_are_uniform(form: str) -> None:
    objective = SpanCorruption(0.5, 2.0, form)  # type: ignore[arg-type]
    compositions = [(1, 3), (2, 2), (3, 1)]
    # kept tokens before each of the two spans, of four: a subset of {0..3}, or a composition of 4
    places = list(combinations(range(4), 2)) if form == "group" else [(1, 4), (2, 4), (3, 4)]
    expected = 200
    counts: Counter[tuple[tuple[int, int], tuple[int, int]]] = Counter()
    for number in range(expected * len(compositions) * len(places)):
        starts, lengths = (part.tolist() for part in objective.spans(8, (5, number)))
        counts[tuple(lengths), (starts[0], starts[1] - lengths[0])] += 1  # type: ignore[index]
    assert set(counts) == {(lengths, place) for lengths in compositions for place in places}
    freedom = len(counts) - 1
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("form", ["group", "t5"])
def test_every_token_is_masked_about_as_often(form: str) -> None:
    objective = SpanCorruption(0.15, 3.0, form)  # type: ignore[arg-type]
    masked = np.zeros(128)
    for number in range(2000):
        for start, length in zip(*objective.spans(128, (1, number)), strict=True):
            masked[start : start + length] += 1
    inner = masked[12:-12] / 2000
    assert abs(inner.mean() - 0.15) < 0.02  # T5's form, whose last token is always masked, has less elsewhere
    assert np.all(np.abs(inner - inner.mean()) < 0.04)


def test_masks_depend_on_both_halves_of_the_key_and_on_nothing_else() -> None:
    objective = SpanCorruption(0.15)
    text = np.arange(1000, 1512, dtype=np.uint16)
    before = text.copy()
    first = objective.corrupt(text, FIRST_SENTINEL, (3, 4))
    assert np.array_equal(text, before)
    np.random.default_rng(0).random(5)
    again = objective.corrupt(text.astype(np.int64), FIRST_SENTINEL, (3, 4))
    assert all(np.array_equal(*parts) for parts in zip(first, again, strict=True))
    assert {part.dtype for part in first} == {np.dtype(np.int32)}
    sources = [objective.corrupt(text, FIRST_SENTINEL, key).source for key in ((3, 5), (4, 4), (4, 3))]
    assert len({source.tobytes() for source in [first.source, *sources]}) == 4


@pytest.mark.parametrize("form", ["group", "t5"])
@pytest.mark.parametrize("text", [[], [5]])
def test_texts_too_short_to_mask_are_left_alone(form: str, text: list[int]) -> None:
    objective = SpanCorruption(0.15, 3.0, form)  # type: ignore[arg-type]
    example = objective.corrupt(np.array(text, dtype=np.uint16), FIRST_SENTINEL, (1, 1))
    assert [part.tolist() for part in example] == [text, [], []]
    counts = objective.lengths(len(text))
    assert (counts.noise, counts.spans, counts.source, counts.decoder) == (0, 0, len(text), 0)


def test_capacity_is_the_last_length_that_fits() -> None:
    group = SpanCorruption(0.5, 3.0, "group")
    assert group.capacity(512, 512, 100) == 605  # 101 spans beyond
    assert group.capacity(512, 512, 1000) == 768  # a source of 513 beyond
    assert group.capacity(512, 300, 1000) == 453  # a target of 302 beyond
    assert SpanCorruption(0.15, 3.0, "t5").capacity(512, 512, 100) == 568
    for objective in (group, SpanCorruption(0.3, 2.0, "t5"), SpanCorruption(0.7, 5.0, "group")):
        capacity = objective.capacity(200, 150, 20)
        inside, outside = objective.lengths(capacity), objective.lengths(capacity + 1)
        assert inside.source <= 200
        assert inside.decoder <= 150
        assert inside.spans <= 20
        assert outside.source > 200 or outside.decoder > 150 or outside.spans > 20


def test_more_spans_than_sentinels_are_refused() -> None:
    objective = SpanCorruption(0.5, 3.0, "t5")
    with pytest.raises(UserError, match=r"766 tokens.* needs 128 sentinels .* has 100: .*max_source_length"):
        check_objective(objective, "translation_span_corruption", 512, 512, num_sentinels=100)
    check_objective(objective, "translation_span_corruption", 512, 512, num_sentinels=128)
    check_objective(SpanCorruption(0.5, 3.0), "translation_span_corruption", 512, 512, num_sentinels=85)
    with pytest.raises(UserError, match="needs 85 sentinels"):
        check_objective(SpanCorruption(0.5, 3.0), "translation_span_corruption", 512, 512, num_sentinels=84)


def test_targets_longer_than_the_decoder_are_refused() -> None:
    check_objective(SpanCorruption(0.5, 3.0), "span_corruption", 512, 340, num_sentinels=100)
    with pytest.raises(UserError, match="targets of 340 tokens, above max_target_length 339"):
        check_objective(SpanCorruption(0.5, 3.0), "span_corruption", 512, 339, num_sentinels=100)


@pytest.mark.parametrize(
    ("density", "mean", "form", "message"),
    [
        (0.0, 3.0, "group", "between 0 and 1"),
        (1.0, 3.0, "group", "between 0 and 1"),
        (float("nan"), 3.0, "group", "between 0 and 1"),
        (0.15, 0.5, "group", "at least 1"),
        (0.15, float("nan"), "group", "at least 1"),
        (0.8, 3.0, "group", "lower the density"),
        (0.15, 3.0, "bart", "choose group or t5"),
    ],
)
def test_impossible_settings_are_refused(density: float, mean: float, form: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SpanCorruption(density, mean, form)  # type: ignore[arg-type]
