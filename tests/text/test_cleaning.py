"""What each cleaning option leaves out, and that it leaves out nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.text.cleaning import REASONS, CleaningSettings, clean
from deltalm_ds.text.readers import Documents

DOCUMENTS = [["un"], ["deux", "trois"], ["les quatre saisons"], ["один"], ["été"], ["123"]]
PAIRS = [["one", "un"], ["OK", "OK"], ["a very long side", "court"], ["one", "один"], ["один", "deux"]]


def french() -> Documents:
    documents = Documents("fr", ("fr",))
    for lines in DOCUMENTS:
        documents.add(lines)
    return documents


def pairs(languages: tuple[str, str] = ("en", "fr")) -> Documents:
    documents = Documents("-".join(languages), languages)
    for lines in PAIRS:
        documents.add(lines)
    return documents


def cleaned(documents: Documents, **options: Any) -> tuple[list[list[str]], dict[str, int]]:
    kept, left_out = clean(documents, CleaningSettings(**options))
    assert (kept.source, kept.languages) == (documents.source, documents.languages)
    assert set(left_out) <= set(REASONS)
    return list(kept), dict(left_out)


def without(several: list[list[str]], *places: int) -> list[list[str]]:
    return [lines for place, lines in enumerate(several) if place not in places]


def test_nothing_is_left_out_by_default() -> None:
    assert cleaned(french()) == (DOCUMENTS, {})
    assert cleaned(pairs()) == (PAIRS, {})


@pytest.mark.parametrize(
    ("options", "places", "reason"),
    [
        ({"min_characters": 2}, (), ""),
        ({"min_characters": 3}, (0,), "too short"),
        ({"min_characters": 11}, (0, 1, 3, 4, 5), "too short"),  # deux, a line end, trois are ten
        ({"max_characters": 18}, (), ""),
        ({"max_characters": 17}, (2,), "too long"),
        ({"max_characters": 9}, (1, 2), "too long"),
        ({"min_script_share": 0.5}, (3,), "wrong script"),
        ({"max_length_ratio": 1.0, "drop_identical_sides": True}, (), ""),  # of pairs
    ],
)
def test_documents(options: dict[str, Any], places: tuple[int, ...], reason: str) -> None:
    assert cleaned(french(), **options) == (
        without(DOCUMENTS, *places),
        {reason: len(places)} if places else {},
    )


@pytest.mark.parametrize(
    ("options", "places", "reason"),
    [
        ({"min_characters": 3}, (0, 1), "too short"),
        ({"max_characters": 15}, (2,), "too long"),
        ({"max_length_ratio": 3.2}, (), ""),
        ({"max_length_ratio": 3.1}, (2,), "unequal lengths"),
        ({"max_length_ratio": 1.0}, (0, 2, 3), "unequal lengths"),
        ({"drop_identical_sides": True}, (1,), "identical sides"),
        ({"min_script_share": 0.5}, (3, 4), "wrong script"),
        ({"min_script_share": 1.0}, (3, 4), "wrong script"),
    ],
)
def test_pairs(options: dict[str, Any], places: tuple[int, ...], reason: str) -> None:
    assert cleaned(pairs(), **options) == (without(PAIRS, *places), {reason: len(places)} if places else {})


def test_a_side_of_unknown_script_is_kept() -> None:
    assert cleaned(pairs(("en", "qaa")), min_script_share=0.5) == (without(PAIRS, 4), {"wrong script": 1})


def test_the_first_reason_counts() -> None:
    options = {
        "min_characters": 3,
        "max_length_ratio": 1.0,
        "drop_identical_sides": True,
        "min_script_share": 1.0,
    }
    assert cleaned(pairs(), **options) == (
        [],
        {"too short": 2, "unequal lengths": 2, "wrong script": 1},
    )


@pytest.mark.parametrize(
    ("form", "expected"), [("none", "ﬁn e\u0301 ﷺ"), ("NFC", "ﬁn é ﷺ"), ("NFKC", "fin é صلى الله عليه وسلم")]
)
def test_normal_forms(form: str, expected: str) -> None:
    documents = Documents("fr", ("fr",), ["ﬁn e\u0301 ﷺ", "x"], [2])
    assert cleaned(documents, unicode_normalization=form) == ([[expected, "x"]], {})


def test_lengths_are_those_of_the_normal_form() -> None:
    documents = Documents("fr", ("fr",), ["e\u0301"], [1])
    assert cleaned(documents, unicode_normalization="NFC", max_characters=1) == ([["é"]], {})


def test_lines_stay_stripped_in_normal_form() -> None:
    documents = Documents("fr", ("fr",), ["\u00a8x"], [1])  # in NFKC a space and a diaeresis
    assert cleaned(documents, unicode_normalization="NFKC") == ([["\u0308x"]], {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_characters": -1}, "--min-characters must not be negative"),
        ({"max_characters": 0}, "--max-characters 0 leaves nothing"),
        ({"min_characters": 9, "max_characters": 8}, "--max-characters 8 leaves nothing"),
        ({"max_length_ratio": 0.5}, "--max-length-ratio must be at least 1"),
        ({"max_length_ratio": float("nan")}, "--max-length-ratio must be at least 1"),
        ({"min_script_share": 1.1}, "--min-script-share must be within"),
        ({"min_script_share": float("nan")}, "--min-script-share must be within"),
        ({"near_duplicate_threshold": 0.0}, "--near-duplicate-threshold must be above 0"),
        ({"near_duplicate_threshold": float("nan")}, "--near-duplicate-threshold must be above 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CleaningSettings(**options)
