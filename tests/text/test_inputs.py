"""What files given to prepare are taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import Input, TextOptions, understand

OPTIONS = TextOptions()


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def summary(inputs: list[Input], folder: Path) -> list[tuple[str, str, bool]]:
    """Source, files and held out of every input."""
    return [
        (entry.name, " ".join(str(text.path.relative_to(folder)) for text in entry.files), entry.held_out)
        for entry in inputs
    ]


def test_folders_stand_for_their_files(tmp_path: Path) -> None:
    touch(tmp_path, "mono/fr.txt", "mono/zh-Hant.txt", "mono/wiki.fr.jsonl", "mono/README.md", "mono/.hidden")
    touch(tmp_path, "mt/en-fr/train.en", "mt/en-fr/train.fr", "mt/en-fr/valid.en", "mt/en-fr/valid.fr")
    touch(tmp_path, "mt/en-fr/test.en", "mt/en-fr/test.fr", "mt/more/x.fr", "mt/more/x.en", "LICENSE.txt")
    inputs, left_out = understand([tmp_path], OPTIONS)
    assert summary(inputs, tmp_path) == [
        ("en-fr", "mt/en-fr/train.en mt/en-fr/train.fr", False),
        ("en-fr", "mt/en-fr/valid.en mt/en-fr/valid.fr", True),
        ("en-fr", "mt/more/x.en mt/more/x.fr", False),
        ("fr", "mono/fr.txt", False),
        ("fr", "mono/wiki.fr.jsonl", False),
        ("zh-Hant", "mono/zh-Hant.txt", False),
    ]
    assert [entry.ordinal for entry in inputs] == [0, 1, 2, 0, 1, 0]
    assert [entry.format for entry in inputs] == ["aligned"] * 3 + ["blocks", "jsonl", "blocks"]
    assert [text.plain_name for text in left_out] == ["LICENSE.txt", "README.md", "test.en", "test.fr"]


def test_named_files_patterns_and_their_order(tmp_path: Path) -> None:
    paths = touch(tmp_path, "train.fr", "train.en", "de.txt", "dev.de.txt", "test.fr.txt")
    forwards, left_out = understand(paths, OPTIONS)
    backwards, _ = understand([*reversed(paths), tmp_path / "*.txt", tmp_path / "de.txt"], OPTIONS)
    assert forwards == backwards
    assert left_out == []
    assert summary(forwards, tmp_path) == [
        ("en-fr", "train.en train.fr", False),
        ("de", "de.txt", False),
        ("de", "dev.de.txt", True),
        ("fr", "test.fr.txt", False),
    ]


def test_languages_of_pairs_follow_their_files(tmp_path: Path) -> None:
    inputs, _ = understand(touch(tmp_path, "train.en-de.en", "train.en-de.de"), OPTIONS)
    (pair,) = inputs
    assert pair.languages == ("de", "en")
    assert [text.path.suffix for text in pair.files] == [".de", ".en"]


def test_options_reach_the_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "fr.txt", "part-1.jsonl")
    options = TextOptions(documents="lines", text_field="body", language_field="lang")
    inputs, _ = understand([tmp_path], options)
    any_language, french = inputs
    assert (french.format, french.languages, french.language_field) == ("lines", ("fr",), None)
    assert (any_language.format, any_language.languages, any_language.name) == ("jsonl", (), "*")
    assert (any_language.fields, any_language.language_field) == (("body",), "lang")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt"], "no language in its name"),
        (["fr.de.txt"], "2 languages"),
        (["fr.csv"], "not understood"),
        (["train.en"], "no partner"),
        (["train.en", "other.fr"], "no partner"),
        (["a/train.en", "b/train.fr"], "no partner"),
        (["train.en", "train.fr", "train.de"], "which two"),
        (["train.csv"], "not understood"),
        (["train.tsv"], r"train\.tsv: no pair of languages in its name; call it en-fr\.tsv"),
        (["en-fr.de-fr.tmx"], r"2 pairs of languages"),
        (["en-fr.txt"], "no language in its name"),
        (["fr.tsv"], "no pair of languages"),
        ([], "has no files"),
        (["README"], "no text among"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(UserError, match=message):
        understand([tmp_path], OPTIONS)


@pytest.mark.parametrize("name", ["fr.txt", "*.txt"])
def test_missing_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        understand([tmp_path / name], OPTIONS)


def test_pairs_in_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "en-fr.tsv.xz", "books.fr-en.tmx.gz", "en-zh-Hant.jsonl", "en_XX-fr_XX.dev.tsv")
    inputs, _ = understand([tmp_path], TextOptions(columns=(3, 5)))
    assert [(entry.name, entry.format, entry.fields, entry.held_out) for entry in inputs] == [
        ("en-fr", "tmx", ("en", "fr"), False),
        ("en-fr", "tsv", ("3", "5"), False),
        ("en-zh-Hant", "jsonl", ("en", "zh-Hant"), False),
        ("en_XX-fr_XX", "tsv", ("3", "5"), True),
    ]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "fr.txt")
    (tmp_path / "link.fr.txt").symlink_to(path)
    inputs, _ = understand([path, tmp_path, tmp_path / "*.txt"], OPTIONS)
    assert len(inputs) == 1
