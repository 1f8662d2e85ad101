"""Text from data made safe to print: nothing in it can steer a terminal or turn the line around."""

from __future__ import annotations

import unicodedata

_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    r"""`text` with control characters (C0, C1, of direction, line ends) and surrogates as escapes, "\x1b".

    What only joins letters (U+200C, U+200D) stays: scripts need it.
    """
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _BIDI_CONTROLS or unicodedata.category(character) in _UNSAFE_CATEGORIES:
        return character.encode("unicode_escape").decode("ascii")
    return character
