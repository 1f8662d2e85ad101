"""A corpus in numbers and as tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_corpus import Document, write_corpus, write_random_corpus

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.fertility import Fertility
from deltalm_ds.data.lengths import LengthSummary
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.data.summary import SourceSummary, describe_corpus, summarise


def documents(*lengths: int) -> list[Document]:
    return [[[0, *[5] * (length - 2), 2]] for length in lengths]


def pairs(*lengths: int) -> list[Document]:
    return [[[0, *[5] * (length - 4), 2], [6, 2]] for length in lengths]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """600 tokens of French, 300 of German, 100 of pairs; an empty language; 50 tokens held out."""
    train = {"de": documents(300), "fr": documents(100, 200, 300), "gu": [], "de-fr": pairs(10, 20, 30, 40)}
    return Corpus.open(write_corpus(tmp_path / "corpus", train, {"fr": documents(50)}))


def test_numbers(corpus: Corpus) -> None:
    german, french, gujarati, both = summarise(corpus.sources("train"), np.array([3, 5, 0, 2]))
    assert french == SourceSummary(
        name="fr",
        kind="monolingual",
        num_documents=3,
        num_tokens=600,
        token_share=0.6,
        sample_share=0.5,
        lengths=LengthSummary(
            mean=200.0, quantiles=(110.0, 150.0, 200.0, 250.0, 290.0), longest=300, is_sampled=False
        ),
    )
    assert (german.token_share, german.sample_share) == (0.3, 0.3)
    assert (gujarati.num_documents, gujarati.token_share, gujarati.lengths) == (0, 0.0, None)
    assert (both.kind, both.num_documents, both.num_tokens) == ("pairs", 4, 100)
    (validation,) = summarise(corpus.sources("valid"), None)
    assert (validation.token_share, validation.sample_share) == (1.0, None)


def test_tables(corpus: Corpus) -> None:
    training = summarise(corpus.sources("train"), np.array([3, 5, 0, 2]))
    validation = summarise(corpus.sources("valid"), None)
    fertility = [Fertility("fr", 400, 1600, 250, 1), Fertility("zh", 300, 400, 9, 0)]
    head, *tables = describe_corpus(corpus, training, validation, fertility).split("\n\n")
    assert corpus.fingerprint[:16] in head
    assert "tokenizer: 200 pieces, <mask> 201, 100 sentinels from 202, 304 rows" in head
    assert tables[0] == "\n".join(
        [
            "training",
            "source  documents  pairs  tokens   mean  median  longest  of tokens  of samples",
            "de              1            300  300.0     300      300     30.00%      30.00%",
            "fr              3            600  200.0     200      300     60.00%      50.00%",
            "gu              0              0                              0.00%       0.00%",
            "de-fr                  4     100   25.0      25       40     10.00%      20.00%",
            "all             4      4   1,000                            100.00%     100.00%",
        ]
    )
    assert tables[1] == "\n".join(
        [
            "validation",
            "source  documents  pairs  tokens  mean  median  longest  of tokens",
            "fr              1             50  50.0      50       50    100.00%",
            "all             1      0      50                           100.00%",
        ]
    )
    title, table = tables[2].split("\n", 1)
    assert title.startswith("tokenizer by language")
    assert table == "\n".join(
        [
            "language  tokens  tokens/character  tokens/word   <unk>",
            "fr           400             0.250        1.600  0.250%",
            "zh           300             0.750               0.000%",
        ]
    )


def test_sampled_lengths_are_marked(corpus: Corpus) -> None:
    lengths = LengthSummary(mean=20.0, quantiles=(1.0, 2.0, 3.0, 4.0, 5.0), longest=6, is_sampled=True)
    training = [
        SourceSummary(
            name="fr",
            kind="monolingual",
            num_documents=50,
            num_tokens=1000,
            token_share=1.0,
            sample_share=1.0,
            lengths=lengths,
        )
    ]
    text = describe_corpus(corpus, training, [], [])
    assert "fr             50          1,000  20.0      ~3       ≥6" in text
    assert "~ and ≥" in text


def test_shares_are_those_of_training(tmp_path: Path) -> None:
    corpus = Corpus.open(write_random_corpus(tmp_path))
    settings = DataSettings(language_exponent=0.5, monolingual_share=0.6)
    reader = SampleReader(corpus, settings, seed=1)
    summaries = summarise(corpus.sources("train"), reader.phases.quotas[0])
    weights = {
        summary.name: summary.num_tokens**0.5 for summary in summaries if summary.kind == "monolingual"
    }
    expected = {name: 0.6 * weight / sum(weights.values()) for name, weight in weights.items()}
    shares = {summary.name: summary.sample_share for summary in summaries}
    assert shares == pytest.approx({**expected, "de-fr": 0.4}, abs=1 / 65_536)


def test_names_from_a_manifest_cannot_steer_a_terminal(tmp_path: Path) -> None:
    corpus = Corpus.open(write_corpus(tmp_path, {"f\x1br": documents(10)}))
    (summary,) = summarise(corpus.sources("train"), None)
    assert summary.name == r"f\x1br"
