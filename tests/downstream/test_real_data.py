"""Cuts of the public corpora have the examples that they are known to have.

REAL_DATA_DIR names another folder of the same form; without one the tests are skipped.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from downstream_examples import examples_of

from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.splits import Split
from deltalm_ds.downstream.splitting import join_sentences, split_sentences

FOLDER = Path(os.environ.get("REAL_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the cuts of public corpora")


def num_texts(examples: list[DownstreamExample]) -> int:
    return sum(len(example.targets) for example in examples)


@pytest.mark.parametrize(
    ("path", "split", "num_entries", "num_lexes"),
    [
        ("webnlg2017.train.tar.gz", "train", 6_940, 18_102),
        ("webnlg2017-dev", "valid", 872, 2_268),
        ("webnlg2023.ru_dev.xml", "valid", 2 * 790, 2 * 2_065),
    ],
)
def test_webnlg(path: str, split: Split, num_entries: int, num_lexes: int) -> None:
    examples = examples_of(FOLDER / "webnlg" / path, task="data-to-text", split=split)
    assert (len(examples), num_texts(examples)) == (num_entries, num_lexes)
    assert len({example.group for example in examples}) == (9 if "ru" in path else 10)


def test_webnlg_in_russian() -> None:
    path = FOLDER / "webnlg" / "webnlg2023.ru_dev.xml"
    examples = examples_of(path, task="data-to-text", split="valid", target_language="ru")
    assert (len(examples), num_texts(examples)) == (790, 2_065)
    assert {example.direction for example in examples} == {"en-ru"}


def test_translation() -> None:
    left_out: Counter[str] = Counter()
    examples = examples_of(FOLDER / "mt", split="valid", source_language="en", left_out=left_out)
    assert Counter(example.target_language for example in examples) == {
        "fr": 1_000,
        "de": 1_000,
        "zh": 500,
        "hi": 200,
    }
    assert len(examples_of(FOLDER / "mt" / "en-hi", both_directions=True)) == 2 * 1_858
    assert not left_out


def test_question_generation() -> None:
    examples = examples_of(FOLDER / "qg", task="question-generation")
    counts = Counter(example.direction for example in examples)
    assert counts == {"zh-zh": 2_500 + 631, "en-en": 632, "hi-hi": 631, "de-de": 629}


def test_summarization() -> None:
    folder, task = FOLDER / "sum-fr", "summarization"
    assert len(examples_of(folder, task=task, source_language="fr")) == 8_000
    assert len(examples_of(folder, task=task, split="valid", source_language="fr")) == 500


@pytest.mark.parametrize("language", ["ar", "de", "el", "en", "fr", "gu", "hi", "ja", "ru", "th", "zh"])
def test_paragraphs_are_split_and_joined(language: str) -> None:
    with (FOLDER / "mono" / f"{language}.txt").open(encoding="utf-8") as file:
        paragraphs = [line.rstrip("\n") for _, line in zip(range(300), file, strict=False)]
    split = [split_sentences(paragraph) for paragraph in paragraphs]
    assert [join_sentences([text for text, _ in pieces], pieces) for pieces in split] == paragraphs
    num_sentences = sum(map(len, split))
    assert num_sentences >= sum(map(bool, paragraphs))
    lengths = [len(text) for pieces in split for text, _ in pieces]
    assert sum(length < 4 for length in lengths) < 0.03 * num_sentences
