"""Counting the pieces of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trim_samples import LINES, TOKENIZER

from deltalm_ds.text.piece_models import kept_pieces
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.trimming.counting import count_differences, count_pieces


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    (tmp_path / "made.model").write_bytes(TOKENIZER)
    return Tokenizer(tmp_path / "made.model")


def test_counts_are_those_of_all_lines(tokenizer: Tokenizer) -> None:
    lines = LINES * 3  # more than are encoded at once
    counts = count_pieces(tokenizer, iter(lines), 5, seed=1)
    expected = np.zeros(120, dtype=int)
    for line in lines:
        for token in tokenizer.encode(line):
            expected[token - 1] += 1
    assert counts.pieces[3:].tolist() == expected[3:].tolist()
    assert counts.num_lines == len(lines)


def test_a_separator_is_no_text(tokenizer: Tokenizer) -> None:
    with_separator = count_pieces(tokenizer, ["bane </s> loki"], 1, seed=1)
    apart = count_pieces(tokenizer, ["bane", "loki"], 1, seed=1)
    assert with_separator.pieces.tolist() == apart.pieces.tolist()


def test_the_sample_follows_from_the_seed(tokenizer: Tokenizer) -> None:
    samples = [count_pieces(tokenizer, iter(LINES), 10, seed).sample for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert len(set(samples[0])) == 10
    places = [LINES.index(line) for line in samples[0]]
    assert places == sorted(places)
    assert places[-1] > 200
    assert count_pieces(tokenizer, iter(LINES[:3]), 10, 1).sample == LINES[:3]


def test_differences_are_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    counts = count_pieces(tokenizer, LINES[:5], 1, seed=1)
    keep = np.flatnonzero(counts.pieces).tolist()
    (tmp_path / "small.model").write_bytes(kept_pieces(TOKENIZER, keep))
    small = Tokenizer(tmp_path / "small.model")
    number_in_old = np.array(sorted({0, 1, 2, *keep, _lowest(TOKENIZER)}))
    assert count_differences(tokenizer, small, number_in_old, LINES[:5]) == (0, "")
    count, first = count_differences(tokenizer, small, number_in_old, LINES)
    assert count > 100
    assert first in LINES[5:]


def _lowest(model: bytes) -> int:
    from sentencepiece import sentencepiece_model_pb2

    pieces = sentencepiece_model_pb2.ModelProto.FromString(model).pieces
    return min(range(3, len(pieces)), key=lambda number: pieces[number].score)
