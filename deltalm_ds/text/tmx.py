"""Translation units of TMX 1.4 (Translation Memory eXchange, LISA, 2005), one at a time.

A unit is parsed without the file around it and so without a document type: no entity can be defined, and
nothing outside the file is ever looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

UNIT_END = re.compile(rb"</tu\s*>")
"""What a unit ends with."""

_UNIT_START = re.compile(rb"<tu[\s>]")
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_TEXT_ELEMENTS = {"hi"}  # other elements in a segment hold codes of the program that made it


def units_in(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Place and bytes of every unit in a part of a file; the last one may lack its end."""
    place = 0
    while start := _UNIT_START.search(content, place):
        end = UNIT_END.search(content, start.end())
        place = end.end() if end else len(content)
        yield start.start(), content[start.start() : place]


def sides_of(unit: bytes, languages: Sequence[str]) -> tuple[str, str] | None:
    """The segments of a unit in two languages, white space made single; None where it lacks one of them.

    A unit's language fits if it is the wanted one, whatever the case and the separators, or a region of it
    (en-US for en). ParseError or UnicodeDecodeError for what is not XML in UTF-8.
    """
    unit.decode("utf-8")
    segments: dict[str, str] = {}
    for variant in ElementTree.fromstring(unit).iter("tuv"):
        language = variant.get(_XML_LANG) or variant.get("lang") or ""
        segment = variant.find("seg")
        if segment is not None:
            segments.setdefault(_normalised(language), " ".join(_text(segment).split()))
    first, second = (_find(segments, language) for language in languages)
    return (first, second) if first is not None and second is not None else None


def _find(segments: dict[str, str], wanted: str) -> str | None:
    wanted = _normalised(wanted)
    if wanted in segments:
        return segments[wanted]
    return next((text for language, text in segments.items() if language.startswith(wanted + "-")), None)


def _normalised(language: str) -> str:
    return language.replace("_", "-").lower()


def _text(element: ElementTree.Element) -> str:
    parts = [element.text or ""]
    for child in element:
        if child.tag in _TEXT_ELEMENTS:
            parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)
