"""Draws: what they follow from, and how they are distributed."""

from __future__ import annotations

import math

import pytest
import torch
from slow_search import END, PAD, ROWS, next_log_probabilities, peaked_model, random_sources

from deltalm_ds.decoding.forced import score_targets
from deltalm_ds.decoding.sampling import draw, uniform
from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings

SOURCE = [5, 9, 14, END]


def tokens_of(found):
    return [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in found]


def test_a_draw_follows_from_seed_number_step_and_hypothesis():
    numbers = torch.tensor([3, 2**40 + 3, 4])
    drawn = uniform(1, numbers, 2, 3)
    assert drawn.unique().numel() == 9
    assert torch.equal(uniform(1, numbers.flip(0), 2, 3).flip(0), drawn)
    assert torch.equal(uniform(1, numbers[1:2], 2, 5)[:, :3], drawn[1:2])
    assert not torch.isin(uniform(2, numbers, 2, 3), drawn).any()
    assert not torch.isin(uniform(1, numbers, 3, 3), drawn).any()


def expected_probabilities(temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    scores = next_log_probabilities(peaked_model(spread=1.5), SOURCE, []).double()
    scores[[PAD, END]] = -math.inf
    probabilities = (scores / temperature).softmax(0)
    order = probabilities.argsort(descending=True)
    kept = order[: top_k or len(order)]
    sums = (probabilities[kept] / probabilities[kept].sum()).cumsum(0)
    kept = kept[: int((sums < top_p).sum()) + 1]
    result = torch.zeros_like(probabilities)
    result[kept] = probabilities[kept] / probabilities[kept].sum()
    return result


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.3, 6, 1.0), (1.0, 0, 0.6), (2.0, 9, 0.8)],
)
def test_distribution(temperature, top_k, top_p):
    settings = SearchSettings(
        beam=4, num_best=4, sampling=True, temperature=temperature, top_k=top_k, top_p=top_p, max_length_b=1
    )
    found = Generator(peaked_model(spread=1.5), settings).generate([SOURCE] * 1000)
    counts = torch.zeros(ROWS)
    for hypotheses in found:
        assert len(hypotheses) == 4
        for hypothesis in hypotheses:
            counts[hypothesis.tokens[0]] += 1
    expected = expected_probabilities(temperature, top_k, top_p) * 4000
    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = int(possible.sum()) - 1
    # Wilson and Hilferty's chi-square quantile at 1 in 10,000.
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3


def test_scores_are_those_of_the_model_whatever_was_drawn_from():
    model = peaked_model(spread=1.5)
    settings = SearchSettings(
        beam=3, num_best=3, sampling=True, temperature=1.5, top_k=10, max_length_b=12, length_penalty=0.5
    )
    sources = random_sources(1, [4, 2, 7])
    for source, hypotheses in zip(sources, Generator(model, settings).generate(sources), strict=True):
        scores = score_targets(model, [source] * len(hypotheses), [found.tokens for found in hypotheses])
        assert [found.score for found in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for hypothesis, expected in zip(hypotheses, scores, strict=True):
            assert hypothesis.token_scores == pytest.approx(expected, abs=2e-5)


def test_seeds_and_numbers():
    model = peaked_model(spread=1.5)

    def drawn(seed, numbers=None):
        settings = SearchSettings(beam=1, sampling=True, seed=seed, max_length_b=12)
        return tokens_of(Generator(model, settings).generate([SOURCE] * 6, numbers=numbers))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1, [9, 8, 7, 6, 5, 4])[::-1] == drawn(1, [4, 5, 6, 7, 8, 9])
    assert len({tuple(best[0]) for best in drawn(1)}) > 3


def test_a_prefix_leaves_all_samples():
    settings = SearchSettings(beam=6, num_best=6, sampling=True, max_length_b=12)
    (found,) = Generator(peaked_model(spread=1.5), settings).generate([SOURCE], prefixes=[[7, 8]])
    assert len(found) == 6
    assert all(hypothesis.tokens[:2] == [7, 8] for hypothesis in found)
    assert len({tuple(hypothesis.tokens) for hypothesis in found}) > 3


def test_top_k_of_one_is_greedy():
    model, sources = peaked_model(), random_sources(2, [4, 2, 7])
    settings = SearchSettings(beam=1, sampling=True, top_k=1, max_length_b=12)
    greedy = SearchSettings(beam=1, max_length_b=12)
    assert tokens_of(Generator(model, settings).generate(sources)) == tokens_of(
        Generator(model, greedy).generate(sources)
    )


def test_what_has_no_probability_is_never_drawn():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 1.0, -math.inf]])
    ends = torch.tensor([[2.0**-33, 1 - 2.0**-33]], dtype=torch.float64)
    assert draw(logits, ends, SearchSettings(sampling=True)).tolist() == [[1, 3]]
    assert draw(logits, ends, SearchSettings(sampling=True, top_k=4)).tolist() == [[3, 1]]
