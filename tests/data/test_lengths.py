"""Lengths of documents, from the index."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from made_corpus import Document, write_corpus

from deltalm_ds.data.corpus import Corpus, Source
from deltalm_ds.data.lengths import QUANTILES, LengthSummary, summarise_lengths
from deltalm_ds.errors import UserError


def document(length: int) -> Document:
    return [[0, *[5] * (length - 2), 2]]


def pair(length: int) -> Document:
    return [[0, *[5] * (length - 4), 2], [6, 2]]


def source_of(folder: Path, name: str, documents: list[Document]) -> Source:
    return Corpus.open(write_corpus(folder, {name: documents})).sources("train")[0]


def test_all_documents_of_a_small_source(tmp_path: Path) -> None:
    """1, 2, … 21 tokens more than 9: quantiles of evenly spaced numbers are known."""
    lengths = np.random.default_rng(0).permutation(np.arange(10, 31)).tolist()
    expected = LengthSummary(
        mean=20.0, quantiles=(11.0, 15.0, 20.0, 25.0, 29.0), longest=30, is_sampled=False
    )
    found = summarise_lengths(source_of(tmp_path / "fr", "fr", [document(length) for length in lengths]))
    assert found == expected
    assert found is not None
    assert found.median == 20.0
    pairs = source_of(tmp_path / "pairs", "de-fr", [pair(length) for length in lengths])
    assert summarise_lengths(pairs) == expected


def test_a_large_source_is_sampled_over_all_of_it(tmp_path: Path) -> None:
    """The second half is ten times as long; a sample of the beginning alone would not see it."""
    documents = [pair(10)] * 12_000 + [pair(100)] * 12_000
    source = source_of(tmp_path, "de-fr", documents)
    found = summarise_lengths(source, max_sequences=1 << 14)
    assert found is not None
    assert found.is_sampled
    assert found.mean == 55.0
    assert found.quantiles[0] == 10.0
    assert found.quantiles[-1] == found.longest == 100.0
    assert summarise_lengths(source, max_sequences=1 << 14) == found
    assert len(found.quantiles) == len(QUANTILES)


def test_no_documents_have_no_lengths(tmp_path: Path) -> None:
    assert summarise_lengths(source_of(tmp_path, "fr", [])) is None


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [(1, -7, "negative length"), (1, 3, r"lengths sum to 28 tokens, and there are 35")],
)
def test_impossible_lengths_name_the_file(tmp_path: Path, place: int, value: int, message: str) -> None:
    write_corpus(tmp_path, {"fr": [document(10), document(10), document(15)]})
    index = bytearray((tmp_path / "train/fr.idx").read_bytes())
    index[34 + 4 * place : 38 + 4 * place] = struct.pack("<i", value)
    (tmp_path / "train/fr.idx").write_bytes(index)
    with pytest.raises(UserError, match=rf"fr\.idx is damaged \(.*{message}"):
        summarise_lengths(Corpus.open(tmp_path).sources("train")[0])


def test_documents_of_another_number_of_sequences_are_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, "fr", [pair(10)])
    with pytest.raises(UserError, match=r"fr\.idx is damaged \(2 sequences in 1 documents of monolingual"):
        summarise_lengths(source)
