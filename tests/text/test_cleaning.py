"""What each cleaning option leaves out, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.text.cleaning import CleaningSettings, clean
from deltalm_ds.text.readers import Documents
from deltalm_ds.text.scripts import scripts_of, share_in_scripts


def cleaned(
    documents: list[list[str]], *languages: str, **options: Any
) -> tuple[list[list[str]], dict[str, int]]:
    given = Documents("-".join(languages), languages)
    for lines in documents:
        given.add(lines)
    kept, left_out = clean(given, CleaningSettings(**options))
    assert (kept.source, kept.languages) == (given.source, languages)
    return list(kept), dict(left_out)


DOCUMENTS = [["a"], ["abc", "def"], ["Привет"], ["x" * 50]]
PAIRS = [["one", "un"], ["same", "same"], ["a", "une phrase bien trop longue"], ["Привет", "bonjour"]]


def test_nothing_is_left_out_by_default() -> None:
    assert cleaned(DOCUMENTS, "fr") == (DOCUMENTS, {})
    assert cleaned(PAIRS, "en", "fr") == (PAIRS, {})


@pytest.mark.parametrize(
    ("options", "kept", "reason"),
    [
        ({"min_characters": 6}, [1, 2, 3], "too short"),
        ({"min_characters": 7}, [1, 3], "too short"),
        ({"max_characters": 7}, [0, 1, 2], "too long"),
        ({"min_script_share": 0.5}, [0, 1, 3], "wrong script"),
    ],
)
def test_documents(options: dict[str, Any], kept: list[int], reason: str) -> None:
    expected = [DOCUMENTS[index] for index in kept]
    assert cleaned(DOCUMENTS, "fr", **options) == (expected, {reason: len(DOCUMENTS) - len(kept)})


@pytest.mark.parametrize(
    ("options", "kept", "reason"),
    [
        ({"min_characters": 3}, [1, 3], "too short"),
        ({"max_characters": 7}, [0, 1, 3], "too long"),
        ({"max_length_ratio": 1.5}, [0, 1, 3], "unequal lengths"),
        ({"max_length_ratio": 1.0}, [1], "unequal lengths"),
        ({"drop_identical_sides": True}, [0, 2, 3], "identical sides"),
        ({"min_script_share": 0.5}, [0, 1, 2], "wrong script"),
    ],
)
def test_pairs(options: dict[str, Any], kept: list[int], reason: str) -> None:
    expected = [PAIRS[index] for index in kept]
    assert cleaned(PAIRS, "en", "fr", **options) == (expected, {reason: len(PAIRS) - len(kept)})


def test_a_document_is_counted_once_for_the_first_reason() -> None:
    options = {"min_characters": 2, "max_length_ratio": 2.0, "drop_identical_sides": True}
    left_out = cleaned([["a", "a"], ["ab", "ab"]], "en", "fr", **options)[1]
    assert left_out == {"too short": 1, "identical sides": 1}


def test_normal_forms() -> None:
    decomposed, ligature = "e\u0301", "\ufb01n"
    assert cleaned([[decomposed, ligature]], "fr", unicode_normalization="NFC")[0] == [["é", ligature]]
    assert cleaned([[decomposed, ligature]], "fr", unicode_normalization="NFKC")[0] == [["é", "fin"]]


@pytest.mark.parametrize(
    "options",
    [
        {"min_characters": -1},
        {"max_characters": 0},
        {"min_characters": 5, "max_characters": 4},
        {"max_length_ratio": 0.5},
        {"min_script_share": 1.5},
        {"near_duplicate_threshold": 0},
    ],
)
def test_impossible_options(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--"):
        CleaningSettings(**options)


TEXTS = {
    "ar": "مرحبا بالعالم",
    "el": "Καλημέρα κόσμε",
    "en": "Good morning, 123!",
    "gu": "સુપ્રભાત વિશ્વ",
    "hi": "सुप्रभात दुनिया",
    "ja": "おはよう、世界のタワー",
    "ko": "안녕하세요 世界",
    "ru": "Доброе утро",
    "th": "สวัสดีชาวโลก",
    "vi": "Chào buổi sáng",
    "zh": "早上好，世界",
    "zh-Hant": "早安，世界",
    "sr": "Добро јутро, dobro jutro",
    "hi_rom": "suprabhat duniya",
    "hau_Latn": "ina kwana",
}


@pytest.mark.parametrize("language", TEXTS)
def test_text_is_in_the_script_of_its_language(language: str) -> None:
    assert share_in_scripts(TEXTS[language], scripts_of(language)) == 1.0


@pytest.mark.parametrize(
    ("language", "other"),
    [("ar", "ru"), ("en", "ru"), ("ru", "en"), ("zh", "ru"), ("hi_rom", "hi"), ("th", "gu"), ("el", "en")],
)
def test_text_is_not_in_another_script(language: str, other: str) -> None:
    assert share_in_scripts(TEXTS[other], scripts_of(language)) < 0.1


def test_text_without_letters_and_languages_without_scripts_pass() -> None:
    assert share_in_scripts("123 !?", scripts_of("fr")) == 1.0
    assert scripts_of("qaa") == ()
    assert cleaned([["Привет"]], "qaa", min_script_share=0.5) == ([["Привет"]], {})
