"""What files given to prepare are taken for."""

from __future__ import annotations

from pathlib import Path

import pytest
from text_files import write_zip

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


def test_patterns_find_what_they_match(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/fr.txt.gz",
        "a/de.txt.gz",
        "b/c/fr.txt.gz",
        "b/c/train.en",
        "b/c/train.fr",
        "fr.txt.gz.part",
    )
    inputs, _ = understand([tmp_path / "**" / "fr.txt.gz", tmp_path / "b" / "*" / "train.*"], OPTIONS)
    assert summary(inputs, tmp_path) == [
        ("en-fr", "b/c/train.en b/c/train.fr", False),
        ("fr", "a/fr.txt.gz", False),
        ("fr", "b/c/fr.txt.gz", False),
    ]


def test_a_file_is_read_once_however_it_is_named(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "fr.txt")
    (tmp_path / "link.fr.txt").symlink_to(path)
    inputs, _ = understand([path, tmp_path, tmp_path / "*.txt", tmp_path / "." / "fr.txt"], OPTIONS)
    assert summary(inputs, tmp_path) == [("fr", "fr.txt", False)]


def test_languages_of_pairs_follow_their_files(tmp_path: Path) -> None:
    inputs, _ = understand(touch(tmp_path, "train.en-de.en", "train.en-de.de"), OPTIONS)
    (pair,) = inputs
    assert (pair.languages, pair.is_pairs) == (("de", "en"), True)
    assert [text.path.suffix for text in pair.files] == [".de", ".en"]


@pytest.mark.parametrize(
    ("name", "text_format", "languages", "fields"),
    [
        ("en-fr.tsv.xz", "tsv", ("en", "fr"), ("3", "5")),
        ("fr-en.tsv", "tsv", ("en", "fr"), ("5", "3")),
        ("en-zh-Hant.tmx.gz", "tmx", ("en", "zh-Hant"), ("en", "zh-Hant")),
        ("en_XX-af_ZA.tmx", "tmx", ("af_ZA", "en_XX"), ("af_ZA", "en_XX")),
        ("books.fr-en.jsonl", "jsonl", ("en", "fr"), ("en", "fr")),
        ("en-fr.valid.json.zst", "jsonl", ("en", "fr"), ("en", "fr")),
        ("wiki.fr.jsonl", "jsonl", ("fr",), ("text",)),
    ],
)
def test_formats_by_name(
    tmp_path: Path, name: str, text_format: str, languages: tuple[str, ...], fields: tuple[str, ...]
) -> None:
    (entry,), _ = understand(touch(tmp_path, name), TextOptions(columns=(3, 5)))
    assert (entry.format, entry.languages, entry.fields) == (text_format, languages, fields)
    assert entry.name == "-".join(languages)
    assert entry.held_out is ("valid" in name)


def test_archives_stand_for_their_members(tmp_path: Path) -> None:
    names = (
        "README",
        "LICENSE",
        "B.en-fr.en",
        "B.en-fr.fr",
        "B.en-fr.ids",
        "x/test.en",
        "x/fr.txt",
        "x/fr.txt.gz",
    )
    path = write_zip(tmp_path / "a.zip", dict.fromkeys(names, "x"))
    for paths in ([path], [tmp_path], [tmp_path / "*.zip"]):
        inputs, left_out = understand(paths, OPTIONS)
        assert [(entry.name, [text.member for text in entry.files]) for entry in inputs] == [
            ("en-fr", ["B.en-fr.en", "B.en-fr.fr"]),
            ("fr", ["x/fr.txt"]),
        ]
        assert [text.member for text in left_out] == [
            "B.en-fr.ids",
            "LICENSE",
            "README",
            "x/fr.txt.gz",
            "x/test.en",
        ]


def test_sides_in_different_places_are_no_pairs(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"a/train.en": "x", "b/train.fr": "x"})
    with pytest.raises(UserError, match=r"a\.zip: a/train\.en has no partner"):
        understand([tmp_path], OPTIONS)


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
        (["train.en", "train.fr", "train.de"], "which two of train.de, train.en, train.fr are pairs"),
        (["train.en", "train.en.gz"], "which two of train.en, train.en.gz are pairs"),
        (["en.tsv"], "no pair of languages in its name; call it en-fr.tsv"),
        (["fr.tmx"], "no pair of languages"),
        (["en-fr.de-fr.tsv"], "2 pairs of languages"),
        (["en-fr.txt"], "no language in its name"),
        (["train.csv", "en-fr.tsv"], "not understood"),
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
