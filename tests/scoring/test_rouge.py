"""ROUGE, against values derived by hand."""

from __future__ import annotations

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.metrics import build_metric

TWO_THIRDS = 200 / 3


def test_by_hand() -> None:
    """a b c d against a c b d: all words, no pair, and three in order."""
    score = build_metric("rouge", "en").score(["a b c d"], [["a c b d"]])
    assert score.parts == pytest.approx({"rouge1": 100, "rouge2": 0, "rougeL": 75})
    assert score.value == pytest.approx(75)


def test_f1_is_the_mean_of_examples() -> None:
    """Not that of summed counts: precision 1/2 and recall 1 give 2/3, the other example 0."""
    assert build_metric("rouge1", "en").score(["a b", "x"], [["a"], ["y"]]).value == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("tokenizer", "rouge1"),
    [
        ("comparable", 50),  # of "été" only "t", of "à" nothing: one of two
        ("words", TWO_THIRDS),
        ("characters", 100 * 2 * 4 / (7 + 8)),  # é, t, é, à
    ],
)
def test_tokenizers(tokenizer: str, rouge1: float) -> None:
    score = build_metric("rouge1", "fr", rouge_tokenizer=tokenizer).score(["Été à Pau"], [["été à Lyon"]])
    assert score.value == pytest.approx(rouge1)
    assert f"|tok:{tokenizer}|stem:no|" in score.signature


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("fr", "comparable"), ("tr", "comparable"), ("ru", "words"), ("hi", "words"), ("zh", "characters")],
)
def test_tokenizer_by_language(language: str, tokenizer: str) -> None:
    assert f"tok:{tokenizer}|" in build_metric("rougeL", language).score(["a"], [["a"]]).signature


def test_marks_belong_to_words() -> None:
    """Hindi's vowel signs are marks: without them these words would be one."""
    assert build_metric("rouge1", "hi").score(["की"], [["का"]]).value == 0


@pytest.mark.parametrize("tokenizer", ["comparable", "words"])
def test_stemmer(tokenizer: str) -> None:
    """Porter's, for words of four letters or more."""
    texts = ["ponies was"], [["pony wa"]]
    assert build_metric("rouge1", "en", rouge_tokenizer=tokenizer).score(*texts).value == 0
    score = build_metric("rouge1", "en", rouge_tokenizer=tokenizer, stemmer=True).score(*texts)
    assert score.value == pytest.approx(50)
    assert "stem:porter" in score.signature


def test_characters_have_no_stems() -> None:
    with pytest.raises(UserError, match="no stems"):
        build_metric("rouge", "zh", stemmer=True)


@pytest.mark.parametrize(
    ("mode", "value"),
    [("max", 100), ("mean", 100 * (1 + 2 / 3 + 0) / 3), ("jackknife", 100 * (2 / 3 + 1 + 1) / 3)],
)
def test_several_references(mode: str, value: float) -> None:
    """F1 against the three is 1, 2/3 and 0."""
    metric = build_metric("rouge1", "en", multi_reference=mode)
    score = metric.score(["a b c d"], [["a b c d", "a b", "x y"]])
    assert score.value == pytest.approx(value)
    assert score.signature.startswith(f"nrefs:3|multi:{mode}|")
    assert metric.score(["a b"], [["a b"]]).value == pytest.approx(100), "one reference is enough"


def test_fewer_references_here_and_there() -> None:
    score = build_metric("rouge1", "en").score(["a", "b"], [["a", "x"], ["b"]])
    assert score.value == 100
    assert score.signature.startswith("nrefs:var|")


def test_characters_of_chinese() -> None:
    """Segmented or not."""
    score = build_metric("rouge-characters", "zh").score(["谁 写了"], [["谁写书"]])
    assert score.parts == pytest.approx(
        {"rouge1-characters": TWO_THIRDS, "rouge2-characters": 50, "rougeL-characters": TWO_THIRDS}
    )
