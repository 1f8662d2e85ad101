"""Which scripts a language is written in, and how much of a text is in them."""

from __future__ import annotations

from functools import cache

import langcodes
import regex

from deltalm_ds.text.languages import is_private

# Languages in use in more scripts than the most likely one that CLDR names.
_MORE_SCRIPTS = {
    "az": ("Cyrl", "Arab"),
    "bs": ("Cyrl",),
    "kk": ("Latn", "Arab"),
    "ku": ("Arab", "Cyrl"),
    "ky": ("Latn", "Arab"),
    "mn": ("Mong",),
    "ms": ("Arab",),
    "ha": ("Arab",),
    "pa": ("Arab",),
    "sd": ("Deva",),
    "sh": ("Cyrl",),
    "sr": ("Latn",),
    "tg": ("Latn", "Arab"),
    "tk": ("Cyrl", "Arab"),
    "tt": ("Latn",),
    "ug": ("Cyrl", "Latn"),
    "uz": ("Cyrl", "Arab"),
    "yue": ("Hans",),
}
_PARTS = {
    "Hans": ("Hani", "Bopo"),
    "Hant": ("Hani", "Bopo"),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Hrkt": ("Hira", "Kana"),
}
_ROMANISED = "_rom"
_LETTERS = regex.compile(r"\p{L}+")


@cache
def scripts_of(language: str) -> tuple[str, ...]:
    """The ISO 15924 codes of Unicode's scripts that text in a language is expected in; none if unknown.

    By the script that the code names (zh-Hant, hau_Latn, hi_rom), else by CLDR's likely subtags.
    """
    if language.endswith(_ROMANISED):
        return ("Latn",)
    if is_private(language):
        return ()
    tag = langcodes.Language.get(language.removesuffix("_zaw"))
    scripts = [tag.script or tag.maximize().script]
    if tag.script is None:
        scripts += _MORE_SCRIPTS.get(tag.language or "", ())
    return tuple(part for script in scripts if script for part in _PARTS.get(script, (script,)))


@cache
def _within(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("[" + "".join(rf"\p{{scx={script}}}" for script in scripts) + "]+")


def share_in_scripts(text: str, scripts: tuple[str, ...]) -> float:
    """Share of the text's letters that are of one of these scripts; 1 where there are no letters."""
    letters = "".join(_LETTERS.findall(text))
    if not letters:
        return 1.0
    return sum(map(len, _within(scripts).findall(letters))) / len(letters)
