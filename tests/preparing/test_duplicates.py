"""Equal and alike documents are left out once each, wherever they are."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from made_text import lines_of, make, model_beside, words, write_text

from deltalm_ds.preparing import duplicates, layout
from deltalm_ds.text import pieces
from deltalm_ds.text.cleaning import CleaningSettings
from deltalm_ds.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_beside(write_text(tmp_path_factory.mktemp("made") / "text"))


def left_out(said: list[str]) -> dict[str, dict[str, int]]:
    """The table of what was left out, by source and reason."""
    (table,) = (part for part in said if part.startswith("left out of"))
    heading, *rows = table.splitlines()
    reasons = heading.removeprefix("left out of").split("  ")
    names = [reason.strip() for reason in reasons if reason.strip()]
    return {
        row.split()[0]: dict(zip(names, map(int, row.replace(",", "").split()[1:]), strict=True))
        for row in rows
    }


@pytest.fixture
def many_small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 400)
    monkeypatch.setattr(duplicates, "KEYS_AT_ONCE", 8)
    monkeypatch.setattr(layout, "RANGE_BYTES", 500)


@pytest.mark.parametrize("seed", range(5))
def test_the_first_of_equal_documents_stays(
    tmp_path: Path, model: Path, many_small_ranges: None, seed: int
) -> None:
    """Against a set in memory, over two files and pairs."""
    generator = random.Random(seed)
    stock = [words(generator, 6) for _ in range(40)]
    documents = [[generator.choice(stock) for _ in range(1 + number % 2)] for number in range(120)]
    folder = tmp_path / "text"
    folder.mkdir()
    texts = ["\n".join(document) for document in documents]
    (folder / "fr.0.txt").write_text("\n\n".join(texts[:70]))
    (folder / "fr.1.txt").write_text("\n\n".join(texts[70:]))
    sides = [[generator.choice(stock[:8]) for _ in range(100)] for _ in range(2)]
    for name, lines in zip(("a.en", "a.fr"), sides, strict=True):
        (folder / name).write_text("\n".join(lines) + "\n")
    said = make(
        folder,
        tmp_path / "out",
        model=model,
        validation_share=0,
        cleaning=CleaningSettings(duplicates="exact"),
    )
    tokenizer = Tokenizer(model)
    kept = lines_of(tmp_path / "out/train/fr", tokenizer)
    assert sorted("\n".join(lines) for lines in kept) == sorted(set(texts))
    pairs = lines_of(tmp_path / "out/train/en-fr", tokenizer)
    assert sorted(map(tuple, pairs)) == sorted(set(zip(*sides, strict=True)))
    assert left_out(said) == {
        "fr": {"read": 120, "duplicate": 120 - len(set(texts))},
        "en-fr": {"read": 100, "duplicate": 100 - len(set(zip(*sides, strict=True)))},
    }


def test_held_out_documents_stay_out_of_training(
    tmp_path: Path, model: Path, many_small_ranges: None
) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    generator = random.Random(0)
    texts = [words(generator, 6) for _ in range(50)]
    (folder / "a.fr.txt").write_text("\n\n".join(texts))
    (folder / "valid.fr.txt").write_text("\n\n".join(texts[10:20]))
    make(folder, tmp_path / "out", model=model, cleaning=CleaningSettings(duplicates="exact"))
    tokenizer = Tokenizer(model)
    valid, train = (
        {lines[0] for lines in lines_of(tmp_path / "out" / split / "fr", tokenizer)}
        for split in ("valid", "train")
    )
    assert valid == set(texts[10:20])
    assert train == set(texts) - valid


def test_alike_documents_are_found_and_others_are_not(
    tmp_path: Path, model: Path, many_small_ranges: None
) -> None:
    """Ten documents of 300 words, each with two copies in which a word differs, among unlike ones."""
    folder = tmp_path / "text"
    folder.mkdir()
    generator = random.Random(3)
    originals = [words(generator, 300).split() for _ in range(30)]
    texts = [" ".join(original) for original in originals]
    for original in originals[:10]:
        for _ in range(2):
            changed = list(original)
            changed[generator.randrange(300)] = "autre"
            texts.append(" ".join(changed))
    texts += texts[:3]
    (folder / "fr.txt").write_text("\n\n".join(texts))
    cleaning = CleaningSettings(duplicates="near")
    said = make(folder, tmp_path / "out", model=model, validation_share=0, cleaning=cleaning)
    kept = {lines[0] for lines in lines_of(tmp_path / "out/train/fr", Tokenizer(model))}
    assert kept == set(texts[:30])
    assert left_out(said) == {"fr": {"read": 53, "duplicate": 3, "near duplicate": 20}}


def test_short_documents_are_only_duplicates_if_equal(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    texts = ["un deux", "un trois", "!?", "...", "un deux"]
    (folder / "fr.txt").write_text("\n\n".join(texts))
    cleaning = CleaningSettings(duplicates="near")
    said = make(folder, tmp_path / "out", model=model, validation_share=0, cleaning=cleaning)
    assert left_out(said) == {"fr": {"read": 5, "duplicate": 1}}
