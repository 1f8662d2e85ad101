"""Training samples as text."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.objectives import Example
from deltalm_ds.data.sample_view import view_sample, wants_color
from deltalm_ds.data.samples import Sample, SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.text.tokenizer import Tokenizer

HOSTILE = ["\x1b[2J", "\u202e", "\u093f"]
"""Pieces 3, 4 and 5: clear the screen, turn the line around, a vowel sign without its letter."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Pieces of one letter each, HOSTILE ones and `▁`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["ab cd", "ba dc", "a b c d"] * 50),
        model_writer=model,
        vocab_size=11,
        model_type="char",
        user_defined_symbols=HOSTILE,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("tokenizer") / "letters.model"
    path.write_bytes(model.getvalue())
    return Tokenizer(path)


def ids(tokenizer: Tokenizer, *parts: str | int) -> list[int]:
    """Ids of texts, and of sentinels by number; a text without a space in front goes on with a word."""
    found: list[int] = []
    for part in parts:
        if isinstance(part, int):
            found.append(tokenizer.vocabulary.sentinel_id(part))
        elif part in ("<s>", "</s>"):
            found.append(0 if part == "<s>" else 2)
        else:
            pieces = tokenizer.encode(part)
            found += pieces if part.startswith(" ") else pieces[1:]
    return found


def sample_of(source: list[int], decoder_input: list[int], labels: list[int]) -> Sample:
    example = Example(*(np.array(tokens, dtype=np.int32) for tokens in (source, decoder_input, labels)))
    return Sample(70_000, 0, 2, 1234, "span_corruption", "fr", example)


def test_plain(tokenizer: Tokenizer) -> None:
    """A sentinel that ends within a word is not parted from the rest of the word."""
    source = ids(tokenizer, "<s>", " a", 0, "cd", 1, " d", "</s>")
    target = ids(tokenizer, 0, " b", 1, " ab", "</s>", " c")
    assert view_sample(sample_of(source, target[:-1], target[1:]), tokenizer, color=False) == (
        "position 70000: fr, span_corruption, epoch 2, item 1,234; source 10 tokens with 2 sentinels, "
        f"target {len(target) - 1} tokens\n"
        "source: <s> a <mask_0>cd <mask_1> d </s>\n"
        "target: <mask_0> b <mask_1> ab </s> c"
    )


def test_colored_spans_have_the_color_of_their_sentinel(tokenizer: Tokenizer) -> None:
    source = ids(tokenizer, " a", 0, " c", 1, "</s>")
    target = ids(tokenizer, 0, " b", 1, " d", "</s>")
    _, source_line, target_line = view_sample(
        sample_of(source, target[:-1], target[1:]), tokenizer, color=True
    ).split("\n")
    first, second = "\x1b[38;5;33m", "\x1b[38;5;166m"
    assert source_line == (
        f"source: a\x1b[1m{first} <mask_0>\x1b[0m c\x1b[1m{second} <mask_1>\x1b[0m\x1b[2m </s>\x1b[0m"
    )
    assert target_line == (
        f"target: \x1b[1m{first}<mask_0>\x1b[0m{first} b\x1b[0m"
        f"\x1b[1m{second} <mask_1>\x1b[0m{second} d\x1b[0m{second} </s>\x1b[0m"
    )


def test_what_a_decoder_reads_and_predicts_otherwise_is_shown_apart(tokenizer: Tokenizer) -> None:
    source, reads, labels = ids(tokenizer, 0, " a"), ids(tokenizer, " b", " c"), ids(tokenizer, " c", " d")
    assert view_sample(sample_of(source, [*reads, 2], [*labels, 2]), tokenizer, color=False).split("\n")[
        1:
    ] == [
        "source: <mask_0> a",
        "decoder reads: b c </s>",
        "decoder predicts: c d </s>",
    ]


def test_text_too_short_to_be_masked(tokenizer: Tokenizer) -> None:
    lines = view_sample(sample_of([0], [], []), tokenizer, color=False).split("\n")
    assert lines[1:] == ["source: <s>", "target: "]


@pytest.mark.parametrize("color", [False, True])
def test_control_characters_are_escaped_and_marks_get_a_circle(tokenizer: Tokenizer, color: bool) -> None:
    escape, override, mark = 4, 5, 6
    assert tokenizer.decode([escape, override, mark]) == "".join(HOSTILE)
    source = [*ids(tokenizer, " a"), escape, override, *ids(tokenizer, 0), mark, *ids(tokenizer, " b")]
    target = ids(tokenizer, 0, " c")
    text = view_sample(sample_of(source, target[:-1], target[1:]), tokenizer, color)
    plain = re.sub(r"\x1b\[[0-9;]+m", "", text)
    assert plain.split("\n")[1] == "source: a\\x1b[2J\\u202e <mask_0>\u25cc\u093f b"
    assert (plain != text) == color
    assert "\u202e" not in text


@pytest.mark.parametrize("form", ["group", "t5"])
def test_lines_are_the_readers_samples(small_corpus: Path, form: str) -> None:
    corpus = Corpus.open(small_corpus)
    settings = DataSettings(max_source_length=64, max_target_length=64, corruption_form=form)  # type: ignore[arg-type]
    reader = SampleReader(corpus, settings, seed=3)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    for sample in reader.samples(range(20)):
        head, source, target = view_sample(sample, tokenizer, color=False).split("\n")
        example = sample.example
        read, predicted = example.decoder_input.tolist(), example.labels.tolist()
        assert head.startswith(f"position {sample.position}: {sample.language}, {sample.objective}, ")
        assert source.removeprefix("source: ").strip() == tokenizer.decode(example.source, show_specials=True)
        whole = tokenizer.decode([read[0], *predicted], show_specials=True)
        assert target.removeprefix("target: ").strip() == whole
        assert whole.startswith("</s>" if form == "t5" else "<mask_0>")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("choice", "stream", "environment", "expected"),
    [
        ("auto", Terminal(), {}, True),
        ("auto", io.StringIO(), {}, False),
        ("auto", Terminal(), {"NO_COLOR": "1"}, False),
        ("auto", Terminal(), {"NO_COLOR": ""}, True),
        ("auto", Terminal(), {"TERM": "dumb"}, False),
        ("always", io.StringIO(), {"NO_COLOR": "1"}, True),
        ("never", Terminal(), {}, False),
    ],
)
def test_when_to_color(choice, stream, environment, expected) -> None:  # type: ignore[no-untyped-def]
    assert wants_color(choice, stream, environment) is expected
