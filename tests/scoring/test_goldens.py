"""Published systems' outputs get their published scores, to 0.02; skipped where the outputs are absent."""

from __future__ import annotations

import pytest
from shared_data import SHARED_DATA

from deltalm_ds.scoring.lines import read_aligned, references_by_example
from deltalm_ds.scoring.metrics import build_metric

GOLDENS = SHARED_DATA / "metric-goldens"
TOLERANCE = 0.02

pytestmark = pytest.mark.skipif(not GOLDENS.is_dir(), reason="no shared data")


@pytest.mark.parametrize(
    ("system", "tokenizer", "rouge"),
    [
        ("barthez", "comparable", (40.86, 23.66, 36.03)),
        ("mbart", "comparable", (40.73, 23.72, 35.99)),
        ("mbarthez", "comparable", (41.10, 24.12, 36.43)),
        ("mbart", "words", (39.82, 21.88, 35.32)),
    ],
)
def test_french_headlines(system: str, tokenizer: str, rouge: tuple[float, ...]) -> None:
    folder = GOLDENS / "orangesum-titles"
    paths = [folder / f"titles.{name}.txt" for name in (system, "gold")]
    hypotheses, gold = read_aligned(paths)
    score = build_metric("rouge", "fr", rouge_tokenizer=tokenizer).score(hypotheses, [(t,) for t in gold])
    assert tuple(score.parts.values()) == pytest.approx(rouge, abs=TOLERANCE)
    assert score.value == score.parts["rougeL"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "names", "scores"),
    [
        (
            *("en", ("hypothesis", *(f"reference{n}" for n in range(4)))),
            {"bleu": 39.70, "chrf": 54.34, "ter": 56.30},
        ),
        ("ru", ("ru.hypothesis", "ru.reference"), {"bleu": 39.05, "chrf": 69.41, "ter": 55.65}),
    ],
)
def test_webnlg(language: str, names: tuple[str, ...], scores: dict[str, float]) -> None:
    """Up to four references: where there are fewer, the files have blank lines."""
    paths = [GOLDENS / "webnlg2020" / name for name in names]
    hypotheses, *files = read_aligned(paths)
    references = references_by_example(paths[1:], files)
    found = {name: build_metric(name, language).score(hypotheses, references) for name in scores}
    assert {name: score.value for name, score in found.items()} == pytest.approx(scores, abs=TOLERANCE)
    varying = "nrefs:var" if len(files) > 1 else "nrefs:1"
    assert all(score.signature.startswith(varying) for score in found.values())
