"""Text that cannot steer a terminal."""

from __future__ import annotations

import pytest

from deltalm_ds.text.printable import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\tb\r\n\x00\x7f", r"a\tb\r\n\x00\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eabc\u202c", r"\u202eabc\u202c"),
        ("\u2066\u2069\u200f\u061c", r"\u2066\u2069\u200f\u061c"),
        ("\u2028\u2029\ud800", r"\u2028\u2029\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_text_of_any_script_stays() -> None:
    text = "Ça va? שלום می‌خواهم क्‍ष 我们 😀 \\x1b \xa0"
    assert printable(text) == text
