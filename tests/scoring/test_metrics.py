"""Metrics by name."""

from __future__ import annotations

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.metrics import METRICS, build_metric


@pytest.mark.parametrize("name", METRICS)
def test_perfect_texts(name: str) -> None:
    metric = build_metric(name, "fr")
    score = metric.score(["le chat est là bas"], [["le chat est là bas", "non"]])
    assert score.value == pytest.approx(100 if metric.higher_is_better else 0)
    assert score.value == score.parts[metric.columns[-1]]
    assert "nrefs:2" in score.signature
    assert "version:" in score.signature
    assert metric.name == name


def test_unknown_names() -> None:
    with pytest.raises(UserError, match=r"'rouge3' is no metric: name one of bleu, chrf"):
        build_metric("rouge3", "fr")
    with pytest.raises(UserError, match=r"'french' is no language"):
        build_metric("bleu", "french")


@pytest.mark.parametrize(("name", "need"), [("meteor", "Java"), ("comet", "downloaded model")])
def test_what_cannot_be_computed_says_what_it_needs(name: str, need: str) -> None:
    with pytest.raises(UserError, match=need):
        build_metric(name, "en")


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "nothing to score"),
        (["a"], [["a"], ["b"]], "1 hypotheses have references for 2"),
        (["a", "b"], [["a"], []], "example 2 has no reference"),
    ],
)
def test_impossible_texts(hypotheses: list[str], references: list[list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_metric("rougeL", "en").score(hypotheses, references)
