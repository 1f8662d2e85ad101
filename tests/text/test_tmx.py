"""Translation units."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from deltalm_ds.text.tmx import sides_of, units_in


def unit(*variants: tuple[str, str], attribute: str = "xml:lang") -> bytes:
    inner = "".join(f'<tuv {attribute}="{language}"><seg>{text}</seg></tuv>' for language, text in variants)
    return f'<tu tuid="1">\n{inner}</tu>'.encode()


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        (("en", "fr"), ("one", "un")),
        (("fr", "en"), ("un", "one")),
        (("en", "de"), None),
        (("e", "fr"), None),
    ],
)
def test_sides_are_found_by_language(languages: tuple[str, str], expected: tuple[str, str] | None) -> None:
    for attribute in ("xml:lang", "lang"):
        assert sides_of(unit(("en", "one"), ("fr", "un"), attribute=attribute), languages) == expected


@pytest.mark.parametrize(
    ("stored", "wanted", "found"),
    [
        ("en-US", "en", True),
        ("EN", "en", True),
        ("en_GB", "en-GB", True),
        ("zh-Hant-TW", "zh-Hant", True),
        ("eng", "en", False),
        ("en", "en-US", False),
    ],
)
def test_regions_case_and_separators(stored: str, wanted: str, found: bool) -> None:
    sides = sides_of(unit((stored, "one"), ("fr", "un")), (wanted, "fr"))
    assert sides == (("one", "un") if found else None)


def test_the_language_itself_goes_before_its_regions() -> None:
    variants = unit(("en-US", "color"), ("en", "colour"), ("fr", "couleur"), ("fr", "teinte"))
    assert sides_of(variants, ("en", "fr")) == ("colour", "couleur")


def test_codes_of_programs_are_left_out_and_white_space_is_single() -> None:
    text = "\n a <bpt i='1'>{\\b </bpt>bold<ept i='1'>}</ept>\tand <hi>high <ph x='1'>[1]</ph>light</hi>.\n"
    assert sides_of(unit(("en", text), ("fr", "x &lt; y &#233;")), ("en", "fr")) == (
        "a bold and high light.",
        "x < y é",
    )


def test_a_blank_segment_is_a_side_and_none_is_not() -> None:
    assert sides_of(unit(("en", " "), ("fr", "un")), ("en", "fr")) == ("", "un")
    assert sides_of(b"<tu><tuv lang='en'/><tuv lang='fr'><seg>un</seg></tuv></tu>", ("en", "fr")) is None


@pytest.mark.parametrize(
    "content",
    [
        b"<tu><tuv></tu>",
        b"<tu>&nbsp;</tu>",
        b"<tu>&bomb;</tu>",
        b"<tu",
        b'<!DOCTYPE tu [<!ENTITY a SYSTEM "file:///etc/passwd">]><tu>&a;</tu>',
    ],
)
def test_what_is_no_xml_is_told(content: bytes) -> None:
    with pytest.raises(ElementTree.ParseError):
        sides_of(content, ("en", "fr"))


def test_other_encodings_are_told() -> None:
    with pytest.raises(UnicodeDecodeError):
        sides_of(unit(("en", "é"), ("fr", "é")).decode().encode("latin-1"), ("en", "fr"))


def test_units_are_found_with_their_places() -> None:
    content = b"<tmx><body>\n<tu>1</tu> <tu\nid='2'>\n<tuv/></tu  ><tuv></tuv><tu>3"
    found = list(units_in(content))
    assert [text for _, text in found] == [b"<tu>1</tu>", b"<tu\nid='2'>\n<tuv/></tu  >", b"<tu>3"]
    assert all(content[place:].startswith(text) for place, text in found)
    assert list(units_in(b"<tuv></tuv></tu>")) == []
    assert len(list(units_in(b"<tu>" * 500_000))) == 1
