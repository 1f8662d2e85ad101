import pytest
from slow_search import END, next_log_probabilities, peaked_model, random_sources

from deltalm_ds.decoding.forced import score_targets


def test_each_token_given_those_before():
    model = peaked_model()
    sources, targets = random_sources(1, [4, 1, 7]), [[5, 9, END], [END], [20, 20, 3, 7]]
    found = score_targets(model, sources, targets)
    for source, target, scores in zip(sources, targets, found, strict=True):
        expected = [
            float(next_log_probabilities(model, source, target[:place])[token])
            for place, token in enumerate(target)
        ]
        assert scores == pytest.approx(expected, abs=1e-5)


def test_nothing_to_score():
    assert score_targets(peaked_model(), [], []) == []


def test_as_many_targets_as_sources():
    with pytest.raises(ValueError, match="2 sources"):
        score_targets(peaked_model(), [[END], [END]], [[END]])
