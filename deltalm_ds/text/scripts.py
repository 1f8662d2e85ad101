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
    "sr": ("Latn",),
    "tg": ("Latn", "Arab"),
    "tk": ("Cyrl", "Arab"),
    "tt": ("Latn",),
    "ug": ("Cyrl", "Latn"),
    "uz": ("Cyrl", "Arab"),
}
_PARTS = {
    "Hans": ("Hani", "Bopo"),
    "Hant": ("Hani", "Bopo"),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
    "Hrkt": ("Hira", "Kana"),
}
_ROMANISED = "_rom"
_NAMED_SCRIPT = regex.compile(r"[-_]([A-Z][a-z]{3})")
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
    if named := _NAMED_SCRIPT.search(language):
        scripts = [named[1]]
    else:
        of_family = tag.prefer_macrolanguage().language or ""
        scripts = [tag.maximize().script or "", *_MORE_SCRIPTS.get(of_family, ())]
    parts = dict.fromkeys(part for script in scripts for part in _PARTS.get(script, (script,)))
    return tuple(part for part in parts if _is_script(part))


def _is_script(code: str) -> bool:
    """Whether Unicode has a script of that code; common, inherited and unknown characters are in none."""
    if code in ("Zinh", "Zyyy", "Zzzz"):
        return False
    try:
        regex.compile(rf"\p{{scx={code}}}")
    except regex.error:
        return False
    return True


@cache
def _within(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile("[" + "".join(rf"\p{{scx={script}}}" for script in scripts) + "]+")


def share_in_scripts(text: str, scripts: tuple[str, ...]) -> float:
    """Share of the text's letters that are of one of these scripts; 1 where there are no letters."""
    letters = "".join(_LETTERS.findall(text))
    if not letters:
        return 1.0
    return sum(map(len, _within(scripts).findall(letters))) / len(letters)
