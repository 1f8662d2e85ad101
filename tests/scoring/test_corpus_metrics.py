"""BLEU, chrF++ and TER, against values derived by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from sacrebleu.metrics.bleu import BLEU

from deltalm_ds.errors import UserError
from deltalm_ds.scoring import corpus_metrics
from deltalm_ds.scoring.metrics import build_metric

CAT = "the cat sat on the mat"
A_MAT = "the cat sat on a mat"


def test_bleu_by_hand() -> None:
    """Of 6, 5, 4, 3 n-grams 5, 3, 2, 1 are right: one `the` too many, and all n-grams with it."""
    score = build_metric("bleu", "en").score([CAT], [[A_MAT]])
    assert score.value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert score.parts["precision2"] == pytest.approx(60)
    assert score.parts["brevity_penalty"] == 1
    assert "tok:13a|smooth:exp" in score.signature


def test_characters_without_smoothing() -> None:
    """Spaces of segmented Chinese are nothing; where no four characters are right, nothing is."""
    metric = build_metric("bleu4-characters", "zh")
    assert metric.score(["谁 写 了 这 本 书"], [["谁写了这本书"]]).value == pytest.approx(100)
    # 5, 3, 2, 1 of 6, 5, 4, 3: the sentence of the cat again.
    assert metric.score(["上猫坐在上席"], [["上猫坐在一席"]]).value == pytest.approx(
        build_metric("bleu", "en").score([CAT], [[A_MAT]]).value
    )
    score = metric.score(["谁写了书"], [["谁写了这"]])
    assert score.value == 0
    assert "tok:char|smooth:none" in score.signature


def test_chrf_by_hand() -> None:
    """One of two characters, no pair of them, no word: a third of a half, in precision as in recall."""
    metric = build_metric("chrf", "en")
    assert metric.score(["ab"], [["ac"]]).value == pytest.approx(100 / 6)
    assert "nw:2" in metric.score(["ab"], [["ac"]]).signature


def test_ter_by_hand() -> None:
    metric = build_metric("ter", "en")
    assert metric.score(["a b c d"], [["a b x d"]]).value == pytest.approx(25)
    # The nearest reference counts, divided by their mean length: 1 edit of (4 + 2) / 2 words.
    assert metric.score(["a b c d"], [["a b x d", "y z"]]).value == pytest.approx(100 / 3)
    assert not metric.higher_is_better
    assert build_metric("bleu", "en").higher_is_better


def test_references_may_be_missing() -> None:
    """An example with fewer references than another has not an empty one more."""
    metric = build_metric("ter", "en")
    score = metric.score(["a b c d", "e f"], [["a b x d"], ["e f", "e f g h"]])
    assert score.value == pytest.approx(100 * 1 / (4 + 3))
    assert score.signature.startswith("nrefs:var")


def test_an_empty_output_is_scored() -> None:
    for name in ("bleu", "chrf", "bleu4-characters"):
        assert build_metric(name, "en").score(["", ""], [["a b"], ["c"]]).value == 0


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("fr", "13a"), ("hi", "13a"), ("zh", "zh"), ("zh-Hant", "zh"), ("zho", "zh"), ("zh_Latn", "13a")],
)
def test_tokenizer_by_language(language: str, tokenizer: str) -> None:
    assert f"|tok:{tokenizer}|" in build_metric("bleu", language).score(["a"], [["a"]]).signature


def test_language_without_tokenizer() -> None:
    with pytest.raises(UserError, match=r"no tokenizer for th.*--bleu-tokenizer char"):
        build_metric("bleu", "th")
    assert build_metric("bleu", "th", bleu_tokenizer="char").score(["กขคง"], [["กขคง"]]).value > 99


@pytest.mark.skipif(importlib.util.find_spec("MeCab") is not None, reason="MeCab is installed")
def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(UserError, match=r"pip install 'sacrebleu\[ja\]'"):
        build_metric("bleu", "ja")


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(corpus_metrics, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(corpus_metrics, "BLEU", lambda **_: pytest.fail("sacrebleu would fetch a model"))
    with pytest.raises(UserError, match=rf"flores200 needs the file https.* as {tmp_path}/models/"):
        build_metric("bleu", "fr", bleu_tokenizer="flores200")


def test_all_tokenizers_are_sacrebleus() -> None:
    known = set(corpus_metrics.BleuTokenizer.__args__)
    assert known <= set(BLEU.TOKENIZERS)
    assert set(BLEU.TOKENIZERS) - known == {"spm", "spBLEU-1K"}
