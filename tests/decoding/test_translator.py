"""Lines to outputs: order, batches, empty and long lines, what is allowed, scores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from made_model import made_lines, write_model_folder

from deltalm_ds.decoding.allowed import ordinary_tokens, tokens_of_file, tokens_of_text
from deltalm_ds.decoding.model_folder import ModelFolder
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.decoding.translator import TextGenerator, is_in_script
from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM

SEARCH = SearchSettings(beam=3, max_length_b=15)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Which is faster for so small a model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder.open(write_model_folder(tmp_path_factory.mktemp("made") / "model"))


@pytest.fixture(scope="module")
def model(folder: ModelFolder) -> DeltaLM:
    return folder.load(torch.device("cpu"), "fp32")


def make(folder: ModelFolder, model: DeltaLM, search: SearchSettings = SEARCH, **options) -> TextGenerator:
    return TextGenerator(model, folder.encoder(model.config.max_positions), search, **options)


def texts_of(generator: TextGenerator, lines: list[str], language: str = "fr", **options) -> list[str]:
    ranked = generator.generate(lines, [language] * len(lines), **options).ranked
    return [outputs[0].text for outputs in ranked]


def test_order_and_batches_change_nothing(folder: ModelFolder, model: DeltaLM) -> None:
    lines = made_lines(40)
    expected = texts_of(make(folder, model), lines)
    assert len(set(expected)) > 20
    order = random.Random(0).sample(range(40), 40)
    shuffled = texts_of(make(folder, model), [lines[place] for place in order])
    assert shuffled == [expected[place] for place in order]
    for batch_tokens in (1, 50, 100_000):
        assert texts_of(make(folder, model, batch_tokens=batch_tokens), lines) == expected
    assert [texts_of(make(folder, model), [line])[0] for line in lines[:10]] == expected[:10]


def test_the_language_is_the_sources_tag(folder: ModelFolder, model: DeltaLM) -> None:
    lines = made_lines(10)
    generator = make(folder, model)
    french, russian = texts_of(generator, lines), texts_of(generator, lines, "ru")
    assert french != russian
    mixed = generator.generate(lines, ["fr", "ru"] * 5).ranked
    assert [outputs[0].text for outputs in mixed] == [
        (russian if place % 2 else french)[place] for place in range(10)
    ]
    with pytest.raises(UserError, match=r"'de'.*it knows fr, ru"):
        generator.generate(["nosa"], ["de"])


def test_lines_without_text_are_not_asked_for(folder: ModelFolder, model: DeltaLM) -> None:
    lines = ["", "nosa teki", "   ", "\u200b", "teki"]
    outputs = make(folder, model).generate(lines, ["fr"] * 5)
    assert [bool(ranked[0].text) for ranked in outputs.ranked] == [False, True, False, False, True]
    assert (outputs.counts.num_lines, outputs.counts.num_sentences) == (5, 2)
    assert outputs.counts.num_lines_with_text == 2
    assert "empty" not in outputs.counts.found
    assert outputs.ranked[0][0].token_scores == ()


def test_a_long_line_is_cut_and_counted(folder: ModelFolder, model: DeltaLM) -> None:
    long = " ".join(made_lines(30))
    generator = make(folder, model)
    outputs = generator.generate(["nosa", long, "teki", long], ["fr"] * 4, first_line=10)
    assert outputs.ranked[1][0].text == outputs.ranked[3][0].text != ""
    assert outputs.counts.found["cut"] == 2
    assert outputs.counts.first_line["cut"] == 12


def test_only_ordinary_pieces_are_written(folder: ModelFolder, model: DeltaLM) -> None:
    """Also by a model that would like special ones best."""
    vocabulary = folder.description.vocabulary
    allowed = ordinary_tokens(vocabulary, model.config.vocabulary_rows)
    assert allowed.tolist() == [
        token == 2 or 4 <= token <= vocabulary.num_pieces for token in range(model.config.vocabulary_rows)
    ]
    spoiled = folder.load(torch.device("cpu"), "fp32")
    with torch.no_grad():
        for token in (0, 1, 3, vocabulary.mask_id, vocabulary.first_sentinel_id, vocabulary.first_tag_id):
            spoiled.embedding.weight[token] = 3 * spoiled.embedding.weight[30]
    texts = texts_of(make(folder, spoiled), made_lines(20))
    assert all(texts)
    assert not any("<" in text or "⁇" in text for text in texts)


def test_allowed_pieces_of_a_text(folder: ModelFolder, model: DeltaLM, tmp_path: Path) -> None:
    tokenizer, num_rows = folder.tokenizer, model.config.vocabulary_rows
    path = tmp_path / "text"
    path.write_text("nosa teki\nlumo 中\n")
    allowed = tokens_of_file(tokenizer, path, num_rows)
    pieces = {token for line in ("nosa teki", "lumo") for token in tokenizer.encode(line)}
    assert set(np.flatnonzero(allowed).tolist()) == {2, *pieces, *tokenizer.encode("lumo 中")} - {3}
    for text in texts_of(make(folder, model, allowed=allowed), made_lines(10)):
        assert set(text.replace(" ", "")) <= set("nosatekilumo")
    assert tokens_of_text(tokenizer, ["nosa"] * 3, num_rows).sum() < allowed.sum()
    path.write_text("\n")
    with pytest.raises(UserError, match="no text to take pieces from"):
        tokens_of_file(tokenizer, path, num_rows)


def test_forced_beginning(folder: ModelFolder, model: DeltaLM) -> None:
    lines = made_lines(10)
    prefix = folder.tokenizer.encode("teki lumo")
    assert all(
        text.startswith("teki lumo") for text in texts_of(make(folder, model, first_tokens=prefix), lines)
    )
    tag = [folder.tags["ru"]]
    forced = texts_of(make(folder, model, first_tokens=tag), lines)
    assert forced != texts_of(make(folder, model), lines)
    assert not any("<" in text for text in forced)


def test_many_best_are_ranked(folder: ModelFolder, model: DeltaLM) -> None:
    search = SearchSettings(beam=3, num_best=3, max_length_b=15)
    outputs = make(folder, model, search).generate(["nosa teki", ""], ["fr"] * 2)
    assert [len(ranked) for ranked in outputs.ranked] == [3, 1]
    scores = [output.score for output in outputs.ranked[0]]
    assert scores == sorted(scores, reverse=True)
    for output in outputs.ranked[0]:
        assert output.score == pytest.approx(sum(output.token_scores) / len(output.token_scores), abs=1e-5)


@pytest.mark.parametrize("length_penalty", [0.6, 1.0])
def test_given_targets_score_as_generated_ones(
    folder: ModelFolder, model: DeltaLM, length_penalty: float
) -> None:
    lines = made_lines(40)
    generator = make(folder, model, SearchSettings(beam=3, max_length_b=15, length_penalty=length_penalty))
    generated = generator.generate(lines, ["fr"] * 40).ranked
    targets = [outputs[0].text for outputs in generated]
    scored = generator.score(lines, targets, ["fr"] * 40)
    # Text alone does not tell how it was cut into pieces.
    same = [
        (ours[0], given[0])
        for ours, given in zip(generated, scored.ranked, strict=True)
        if len(ours[0].token_scores) == len(given[0].token_scores)
    ]
    num_equal = sum(abs(ours.score - given.score) < 1e-5 for ours, given in same)
    assert num_equal > 10
    assert num_equal >= len(same) - 3
    assert [ranked[0].text for ranked in scored.ranked] == targets
    small = make(folder, model, batch_tokens=1).score(lines, targets, ["fr"] * 40)
    for ours, other in zip(scored.ranked, small.ranked, strict=True):
        assert ours[0].token_scores == pytest.approx(other[0].token_scores, abs=1e-5)


def test_scoring_cuts_and_counts(folder: ModelFolder, model: DeltaLM) -> None:
    long = " ".join(made_lines(30))
    outputs = make(folder, model).score(["nosa", long, ""], [long, "teki", ""], ["fr"] * 3, first_line=4)
    assert outputs.counts.found == {"cut": 1, "cut_target": 1}
    assert outputs.counts.first_line == {"cut": 6, "cut_target": 5}
    assert [len(ranked[0].token_scores) for ranked in outputs.ranked][::2] == [64, 1]


def test_draws_follow_line_numbers(folder: ModelFolder, model: DeltaLM) -> None:
    search = SearchSettings(beam=1, sampling=True, seed=3, max_length_b=15)
    generator, lines = make(folder, model, search), made_lines(20)
    expected = texts_of(generator, lines)
    assert texts_of(make(folder, model, search, batch_tokens=30), lines) == expected
    assert texts_of(generator, lines[7:], first_line=7) == expected[7:]
    assert texts_of(generator, lines[7:]) != expected[7:]
    other = SearchSettings(beam=1, sampling=True, seed=4, max_length_b=15)
    assert texts_of(make(folder, model, other), lines) != expected


def test_sentences_are_generated_one_by_one(folder: ModelFolder, model: DeltaLM) -> None:
    sentences = [f"{line.capitalize()}." for line in made_lines(6)]
    expected = [text for text in texts_of(make(folder, model), sentences) if text]
    outputs = make(folder, model, is_split=True).generate([" ".join(sentences), "", sentences[0]], ["fr"] * 3)
    assert outputs.ranked[0][0].text == " ".join(expected)
    assert outputs.ranked[1][0].text == ""
    assert outputs.ranked[2][0].text == expected[0]
    assert (outputs.counts.num_lines, outputs.counts.num_sentences) == (3, 7)
    best = outputs.ranked[0][0]
    assert best.score == pytest.approx(sum(best.token_scores) / len(best.token_scores))


def test_half_of_the_letters_tell_the_script() -> None:
    assert is_in_script("Привет, world и все", "ru")
    assert not is_in_script("hello, мир", "ru")
    assert not is_in_script("", "ru")
    assert not is_in_script("hello", "")
    assert not is_in_script("hello", "simple")
