"""Scripts of languages, and how much of a text is in them."""

from __future__ import annotations

import pytest

from deltalm_ds.text.languages import is_language
from deltalm_ds.text.scripts import scripts_of, share_in_scripts

LATIN = "cs de en es et fi fr lv ro tr vi"
OTHERS = {
    "ar": "Arab",
    "el": "Grek",
    "gu": "Gujr",
    "hi": "Deva",
    "ru": "Cyrl",
    "th": "Thai",
    "sd": "Arab Deva",
}
HAN = {
    "ja": "Hani Hira Kana",
    "zh": "Hani Bopo",
    "zh-Hant": "Hani Bopo",
    "zh_CN": "Hani Bopo",
    "ko": "Hang Hani",
}
NAMED = {"hi_rom": "Latn", "hau_Latn": "Latn", "uz-Cyrl": "Cyrl", "my_zaw": "Mymr", "sr-Latn": "Latn"}
SEVERAL = {
    "sr": "Cyrl Latn",
    "az": "Latn Cyrl Arab",
    "uzn": "Latn Cyrl Arab",
    "ms": "Latn Arab",
}
PLAIN = {"en_XX": "Latn", "es-419": "Latn", "pt-BR": "Latn", "no": "Latn", "tl": "Latn", "khk": "Cyrl Mong"}


@pytest.mark.parametrize(
    ("language", "scripts"),
    [
        *((language, "Latn") for language in LATIN.split()),
        *{**OTHERS, **HAN, **NAMED, **SEVERAL, **PLAIN}.items(),
        *((language, "") for language in ("qaa", "qtz-Latn", "eng_Abcd", "zxx_Zzzz")),
    ],
)
def test_scripts(language: str, scripts: str) -> None:
    assert is_language(language)
    assert scripts_of(language) == tuple(scripts.split())


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("Un été, 2024!", "fr", 1.0),
        ("ένα one", "el", 0.5),
        ("一二三abc", "zh", 0.5),
        ("ひらカナ漢ー", "ja", 1.0),
        ("한국 漢字", "ko", 1.0),
        ("हिन्दी namaste", "hi", 3 / 10),  # letters; vowel signs are marks
        ("аbвг", "sr", 1.0),
        ("אב", "ru", 0.0),
        ("12.3 – ♥", "ru", 1.0),
        ("", "ru", 1.0),
    ],
)
def test_shares(text: str, language: str, share: float) -> None:
    assert share_in_scripts(text, scripts_of(language)) == pytest.approx(share)
