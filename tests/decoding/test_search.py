"""The search against a slow one, and what must not change its results."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_search import END, PAD, ROWS, next_log_probabilities, peaked_model, random_sources, slow_search

from deltalm_ds.decoding.forced import score_targets
from deltalm_ds.decoding.search import Generator, Hypothesis
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.ops.native import kernels

LENGTHS = [5, 1, 9, 3]


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in expected]
    for ours, other in zip(found, expected, strict=True):
        assert ours.score == pytest.approx(other.score, abs=1e-5)
        assert ours.token_scores == pytest.approx(other.token_scores, abs=2e-5)


SETTINGS = [
    {},
    {"beam": 1},
    {"beam": 2, "num_best": 2, "length_penalty": 0.3},
    {"beam": 4, "num_best": 4, "length_penalty": 0.0, "max_length_b": 6},
    {"num_best": 5, "max_length_a": 1.5, "max_length_b": 2},
    {"num_best": 3, "min_length": 6, "no_repeat_ngram": 1},
    {"num_best": 3, "min_length": 8, "no_repeat_ngram": 2, "length_penalty": 1.4},
    {"num_best": 3, "min_length": 10, "no_repeat_ngram": 3},
    {"num_best": 5, "repetition_penalty": 1.8, "min_length": 5},
    {"num_best": 3, "repetition_penalty": 0.7, "no_repeat_ngram": 4, "min_length": 5},
    {"beam": 3, "num_best": 3, "min_length": 45, "max_length_b": 60},
    {"beam": 30, "num_best": 30, "max_length_b": 3},
    {"beam": 3, "num_best": 3, "max_length_b": 200, "min_length": 70},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_finds_what_a_slow_search_finds(changes):
    model, settings = peaked_model(), SearchSettings(**{"max_length_b": 20, **changes})
    sources = random_sources(1, LENGTHS)
    for source, found in zip(sources, Generator(model, settings).generate(sources), strict=True):
        assert found
        assert_same(found, slow_search(model, source, settings))


@pytest.mark.parametrize("pre_layer_norm", [False, True])
@pytest.mark.parametrize("embedding_layer_norm", [False, True])
def test_every_form_of_the_model(pre_layer_norm, embedding_layer_norm):
    model = peaked_model(pre_layer_norm=pre_layer_norm, embedding_layer_norm=embedding_layer_norm)
    settings = SearchSettings(num_best=5, max_length_b=12, min_length=4)
    sources = random_sources(2, LENGTHS)
    for source, found in zip(sources, Generator(model, settings).generate(sources), strict=True):
        assert_same(found, slow_search(model, source, settings))


def test_without_the_c_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "support", lambda *tensors: False)
    model, settings = peaked_model(), SearchSettings(num_best=5, min_length=20, max_length_b=24)
    sources = random_sources(1, LENGTHS)
    for source, found in zip(sources, Generator(model, settings).generate(sources), strict=True):
        assert_same(found, slow_search(model, source, settings))


def test_prefixes_and_allowed_tokens():
    model = peaked_model()
    allowed = torch.zeros(ROWS, dtype=torch.bool)
    allowed[[END, PAD, 5, 6, 9, 12, 15, 20]] = True
    settings = SearchSettings(num_best=5, max_length_b=7, no_repeat_ngram=2)
    sources = random_sources(3, [*LENGTHS, 4])
    prefixes = [[7], [], [8, 8, 8], [5, 11], [9] * 30]
    found = Generator(model, settings, allowed=allowed).generate(sources, prefixes=prefixes)
    for source, prefix, hypotheses in zip(sources, prefixes, found, strict=True):
        assert_same(hypotheses, slow_search(model, source, settings, prefix, allowed))
        for hypothesis in hypotheses:
            length = min(7, len(prefix))
            assert hypothesis.tokens[:length] == prefix[:length]
            assert all(allowed[token] for token in hypothesis.tokens[len(prefix) :])
            assert PAD not in hypothesis.tokens
    assert found[4][0].tokens == [9] * 7 + [END]


def test_a_beam_of_one_is_greedy():
    model = peaked_model(4)
    sources = random_sources(4, LENGTHS)
    found = Generator(model, SearchSettings(beam=1, max_length_b=25)).generate(sources)
    for source, hypotheses in zip(sources, found, strict=True):
        tokens: list[int] = []
        while tokens[-1:] != [END] and len(tokens) < 25:
            scores = next_log_probabilities(model, source, tokens)
            scores[PAD] = -torch.inf
            if not tokens:
                scores[END] = -torch.inf
            tokens.append(int(scores.argmax()))
        assert len(hypotheses) == 1
        assert hypotheses[0].tokens == (tokens if tokens[-1] == END else [*tokens, END])


def test_scores_are_those_of_the_model():
    model = peaked_model()
    sources = random_sources(5, LENGTHS)
    settings = SearchSettings(num_best=5, length_penalty=0.7, max_length_b=30, no_repeat_ngram=2)
    for source, hypotheses in zip(sources, Generator(model, settings).generate(sources), strict=True):
        scores = score_targets(model, [source] * len(hypotheses), [found.tokens for found in hypotheses])
        for hypothesis, expected in zip(hypotheses, scores, strict=True):
            assert hypothesis.token_scores == pytest.approx(expected, abs=2e-5)
            total = sum(expected) / len(expected) ** 0.7
            assert hypothesis.score == pytest.approx(total, abs=1e-5)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(1, 12), min_size=2, max_size=9),
    order=st.randoms(use_true_random=False),
    options=st.sampled_from(
        [
            {"beam": 1, "max_length_b": 30},
            {"num_best": 5, "max_length_a": 2.0, "max_length_b": 3},
            {"beam": 3, "num_best": 3, "no_repeat_ngram": 2, "max_length_b": 25, "min_length": 3},
            {"beam": 2, "num_best": 2, "sampling": True, "top_p": 0.9, "max_length_b": 25},
        ]
    ),
)
def test_neither_company_nor_order_changes_a_result(seed, lengths, order, options):
    generator = Generator(peaked_model(seed), SearchSettings(**options))
    sources = random_sources(seed, lengths)
    numbers = [2**33 + 7 * place for place in range(len(sources))]
    together = generator.generate(sources, numbers=numbers)
    shuffled = order.sample(range(len(sources)), len(sources))
    again = generator.generate(
        [sources[place] for place in shuffled], numbers=[numbers[place] for place in shuffled]
    )
    for position, place in enumerate(shuffled):
        assert_same(again[position], together[place])
        assert_same(generator.generate([sources[place]], numbers=[numbers[place]])[0], together[place])


def test_no_sources():
    assert Generator(peaked_model(), SearchSettings()).generate([]) == []


def test_nothing_that_is_allowed():
    allowed = torch.zeros(ROWS, dtype=torch.bool)
    allowed[[END, 6]] = True
    settings = SearchSettings(min_length=5, no_repeat_ngram=1, max_length_b=9)
    assert Generator(peaked_model(), settings, allowed=allowed).generate([[5, END]]) == [[]]


@pytest.mark.parametrize(
    ("sources", "prefixes", "message"),
    [
        ([[5, END], []], None, "empty source"),
        ([[ROWS, END]], None, "outside"),
        ([[5, END]], [[-1]], "outside"),
        ([[5, END]], [[5], [6]], "2 prefixes"),
        ([[5] * 64 + [END]], None, "positions"),
    ],
)
def test_what_cannot_be_decoded(sources, prefixes, message):
    with pytest.raises(ValueError, match=message):
        Generator(peaked_model(), SearchSettings()).generate(sources, prefixes=prefixes)


def test_allowed_must_fit():
    with pytest.raises(ValueError, match="bool"):
        Generator(peaked_model(), SearchSettings(), allowed=torch.ones(ROWS + 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="</s>"):
        Generator(peaked_model(), SearchSettings(), allowed=torch.arange(ROWS) > END)


def test_16_bit_weights_on_the_cpu():
    model = peaked_model().to(torch.bfloat16)
    sources = random_sources(6, LENGTHS)
    found = Generator(model, SearchSettings(max_length_b=20)).generate(sources)
    scores = score_targets(model, sources, [hypotheses[0].tokens for hypotheses in found])
    for hypotheses, expected in zip(found, scores, strict=True):
        assert hypotheses[0].token_scores == pytest.approx(expected, abs=0.3)
