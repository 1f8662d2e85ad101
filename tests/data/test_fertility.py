"""Tokens per character and per word, against counts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_corpus import write_corpus

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.fertility import MAX_DOCUMENT_TOKENS, Fertility, measure_fertility
from deltalm_ds.text.tokenizer import Tokenizer, train_tokenizer

LINES = ["la page du livre", "le livre de la fin", "page de fin", "我们在这里"] * 20


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "made.model"
    path.write_bytes(train_tokenizer(LINES, 25, 1.0))
    return Tokenizer(path)


def document(tokenizer: Tokenizer, *lines: str) -> list[list[int]]:
    return [[0, *(token for line in lines for token in [*tokenizer.encode(line), 2])]]


def pair(tokenizer: Tokenizer, source: str, target: str) -> list[list[int]]:
    return [[0, *tokenizer.encode(source), 2], [*tokenizer.encode(target), 2]]


def num_tokens(tokenizer: Tokenizer, *lines: str) -> int:
    return sum(len(tokenizer.encode(line)) for line in lines)


def test_counts(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """漢 and 字 have no piece: each is one <unk>, a character, and no end of a word."""
    folder = write_corpus(
        tmp_path,
        {
            "fr": [document(tokenizer, "la page", "fin 漢 de"), document(tokenizer, "le livre")],
            "zh": [document(tokenizer, "我们在", "这字里")],
            "fr-zh": [pair(tokenizer, "la fin", "我们")],
        },
        num_pieces=tokenizer.vocabulary.num_pieces,
    )
    french, chinese = measure_fertility(Corpus.open(folder).sources("train"), tokenizer, 10)
    tokens = num_tokens(tokenizer, "la page", "fin 漢 de", "le livre", "la fin")
    # "la page fin 漢 de", "le livre" and "la fin": the end of a line counts as a space.
    assert french == Fertility("fr", tokens, characters=16 + 8 + 6, words=5 + 2 + 2, unknown=1)
    assert french.tokens_per_character == tokens / 30
    assert french.tokens_per_word == tokens / 9
    assert french.unknown_share == 1 / tokens
    tokens = num_tokens(tokenizer, "我们在", "这字里", "我们")
    assert chinese == Fertility("zh", tokens, characters=7 + 2, words=2 + 1, unknown=1)
    assert chinese.tokens_per_word is None


def test_a_given_number_of_documents_is_read_and_of_long_ones_the_beginning(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    long = document(tokenizer, *["la page"] * 2000)
    folder = write_corpus(
        tmp_path,
        {"fr": [long, document(tokenizer, "le livre"), document(tokenizer, "fin")], "en": [[[0, 2]]]},
        num_pieces=tokenizer.vocabulary.num_pieces,
    )
    sources = Corpus.open(folder).sources("train")
    (one,) = measure_fertility(sources, tokenizer, 1)
    ends = long[0][:MAX_DOCUMENT_TOKENS].count(2)
    assert one.tokens == MAX_DOCUMENT_TOKENS - 1 - ends
    (two,) = measure_fertility(sources, tokenizer, 2)
    assert two.tokens == one.tokens + num_tokens(tokenizer, "le livre")
    assert measure_fertility(sources, tokenizer, 0) == []
