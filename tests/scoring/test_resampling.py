"""Intervals and tests, against sacrebleu's and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.significance import PairedTest

from deltalm_ds.scoring import resampling
from deltalm_ds.scoring.metrics import build_metric
from deltalm_ds.scoring.resampling import bootstrap, interval, p_values

WORDS = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"]


def made_texts(seed: int, wrong: float, num: int = 40) -> list[str]:
    """Lines of ten words of which a share is wrong."""
    generator = np.random.default_rng(seed)
    return [" ".join("non" if generator.random() < wrong else word for word in WORDS) for _ in range(num)]


GOLD = [" ".join(WORDS)] * 40
REFERENCES = [(text,) for text in GOLD]


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_as_sacrebleu(name: str) -> None:
    """The same draws by the same seed; float32 there."""
    metric = build_metric(name, "fr")
    own, other = made_texts(1, 0.3), made_texts(2, 0.34)
    rows, baseline = (metric.statistics(texts, REFERENCES).rows for texts in (own, other))
    low, high = interval(bootstrap(metric, rows, 200, 12345))[0]
    theirs = metric.metric.corpus_score(own, [GOLD], n_bootstrap=200)
    assert (high - low) / 2 == pytest.approx(theirs._ci, abs=1e-3)
    for test, short in (("bootstrap", "bs"), ("randomisation", "ar")):
        systems = [("baseline", other), ("own", own)]
        paired = PairedTest(systems, {name: metric.metric}, [GOLD], test_type=short, n_samples=200)
        _, scores = paired()
        (results,) = (value for key, value in scores.items() if key != "System")
        p = p_values(metric, rows, baseline, test, 200, 12345)
        if name == "ter":  # counts edits, so that many resamples differ as the systems do: they count here
            assert p[0] >= results[1].p_value - 1e-9, test
        else:
            assert p == pytest.approx([results[1].p_value], abs=1e-9), test
        assert 0.02 < p[0] < 0.98


def test_many_examples_are_drawn_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = build_metric("rouge", "fr")
    rows = metric.statistics(made_texts(1, 0.3), REFERENCES).rows
    whole = bootstrap(metric, rows, 101, 3)
    monkeypatch.setattr(resampling, "_DRAWS_AT_ONCE", 7 * len(rows))
    assert np.array_equal(bootstrap(metric, rows, 101, 3), whole)
    assert whole.shape == (101, 3)
    assert not np.array_equal(bootstrap(metric, rows, 101, 4), whole)


@pytest.mark.parametrize("test", ["bootstrap", "randomisation"])
def test_equal_systems_do_not_differ(test: resampling.PairedTest) -> None:
    metric = build_metric("rouge", "fr")
    rows = metric.statistics(made_texts(1, 0.3), REFERENCES).rows
    assert p_values(metric, rows, rows, test, 100, 1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("test", ["bootstrap", "randomisation"])
@pytest.mark.parametrize("name", ["rouge1", "ter"])
def test_one_that_is_always_better_differs(test: resampling.PairedTest, name: str) -> None:
    """No resample comes near: only the observed one."""
    metric = build_metric(name, "fr")
    rows = metric.statistics(made_texts(1, 0.1), REFERENCES).rows
    worse = metric.statistics(made_texts(2, 0.7), REFERENCES).rows
    assert p_values(metric, rows, worse, test, 99, 1).tolist() == [0.01]


def test_randomisation_of_one_example() -> None:
    """Swapping turns the difference round and leaves it as large."""
    metric = build_metric("rouge1", "fr")
    rows, other = (metric.statistics([text], [("un deux",)]).rows for text in ("un deux", "un"))
    assert p_values(metric, rows, other, "randomisation", 50, 1).tolist() == [1]


def test_interval_by_hand() -> None:
    """Of eighty values two are left out at each end."""
    values = np.random.default_rng(1).permutation(80).astype(float)
    assert interval(np.stack([values, -values], axis=1)).tolist() == [[2, 77], [-77, -2]]
