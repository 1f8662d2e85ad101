"""What the tokenizer is trained on."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from deltalm_ds.preparing.stages import Stage
from deltalm_ds.preparing.tokenizers import (
    _sampled_lines,
    sample_piece,
    sampling_rates,
    survey,
    survey_piece,
)
from deltalm_ds.processes import Workers
from deltalm_ds.ranks import Ranks
from deltalm_ds.text import pieces
from deltalm_ds.text.inputs import TextOptions, understand
from deltalm_ds.text.pieces import Part, parts_of


def parts_in(folder: Path) -> list[Part]:
    inputs, _ = understand([folder], TextOptions())
    return [part for entry in inputs for part in parts_of(entry)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "fr.txt").write_text("é un\ndeux\n\ntrois\n", encoding="utf-8")
    (folder / "valid.fr.txt").write_text("quatre\n")
    (folder / "train.en").write_text("one\n\nthree\n")
    (folder / "train.fr").write_text("un\ndeux\ntroisième\n", encoding="utf-8")
    return folder


def surveyed(folder: Path, name: str) -> tuple[Counter[str], list[str]]:
    """Bytes by language, and the hashes of all pieces."""
    parts = parts_in(folder)
    with Workers(1) as workers:
        stage = survey(folder.parent / name, parts, "error", Ranks(), workers)
    language_bytes: Counter[str] = Counter()
    for part in parts:
        for result in stage.results(part):
            language_bytes.update(result["language_bytes"])
    return language_bytes, [result["sha256"] for part in parts for result in stage.results(part)]


def test_counts_leave_held_out_text_and_blank_pairs_out(folder: Path) -> None:
    language_bytes, _ = surveyed(folder, "work")
    assert language_bytes == {"en": 3 + 5, "fr": 5 + 4 + 5 + 2 + len("troisième".encode())}


def test_the_hashes_see_every_byte(folder: Path) -> None:
    before = surveyed(folder, "first")[1]
    assert surveyed(folder, "second")[1] == before
    (folder / "valid.fr.txt").write_text("quatre \n")
    assert surveyed(folder, "third")[1] != before


def test_rates_balance_languages() -> None:
    sizes = {"big": 1_000_000, "small": 1_000}
    rates = sampling_rates(sizes, 0.3, 10**9)
    sampled = {language: rates[language] * size for language, size in sizes.items()}
    assert sum(sampled.values()) == pytest.approx(sum(sizes.values()))
    assert sampled["big"] / sampled["small"] == pytest.approx(1000**0.3)
    assert rates["small"] > 1 > rates["big"]
    assert sampling_rates(sizes, 1.0, 10**9) == pytest.approx({"big": 1.0, "small": 1.0})
    halved = sampling_rates(sizes, 0.3, sum(sizes.values()) // 2)
    assert halved == pytest.approx({language: rate / 2 for language, rate in rates.items()}, rel=1e-5)


def test_the_sample_follows_the_rates_and_not_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "fr.txt").write_text("".join(f"f {number}\n\n" for number in range(2000)))
    (folder / "train.en").write_text("".join(f"e {number}\n" for number in range(2000)))
    (folder / "train.fr").write_text("".join(f"p {number}\n" for number in range(2000)))
    rates = {"fr": 0.25, "en": 2.5}
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)

    def sample(name: str, count: int, seed: int = 3) -> list[str]:
        stage = Stage("sample", tmp_path / name, parts_in(folder))
        with Workers(count) as workers:
            stage.run(partial(sample_piece, rates=rates, seed=seed, damaged="error"), Ranks(), workers)
        return list(_sampled_lines(stage))

    lines = sample("one", 1)
    assert sample("two", 2) == lines
    assert sample("other", 1, seed=4) != lines
    counts = Counter(line.split()[0] for line in lines)
    assert set(counts) == {"f", "e", "p"}
    for kind, expected in {"f": 500, "p": 500, "e": 5000}.items():
        assert abs(counts[kind] - expected) < 100  # five standard deviations
    assert set(Counter(line for line in lines if line[0] == "e").values()) == {2, 3}


def test_stages_do_nothing_twice_and_name_what_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 6)
    stage = Stage("survey", tmp_path / "work", parts_in(folder))
    done: list[tuple[str, int, int]] = []

    def count(piece: pieces.Piece, place: Path) -> dict[str, object]:
        done.append((piece.input.name, piece.input.ordinal, piece.number))
        return survey_piece(piece, place, "error")

    with Workers(1) as workers:
        stage.run(count, Ranks(), workers)
        assert len(done) == len(set(done)) > 4
        first = list(done)
        stage.run(count, Ranks(), workers)
        assert done == first
        (folder / "fr.txt").write_text("nouveau\n\ntexte\n")
        changed = Stage("survey", tmp_path / "work", parts_in(folder))
        changed.run(count, Ranks(), workers)
    assert {place[:2] for place in done[len(first) :]} == {("fr", 0)}
