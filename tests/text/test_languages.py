"""Which names are languages."""

from __future__ import annotations

import pytest

from deltalm_ds.text.languages import is_language, is_written_with_spaces

CODES = "fr en gu ceb zh-Hant zh_Hans pt-BR en_XX hau_Latn es-419 hi_rom qaa"
OTHERS = "csv tsv bin idx txt log src tgt new bak wiki FR fra1 en-fr zh-tw x"


@pytest.mark.parametrize("name", CODES.split())
def test_codes(name: str) -> None:
    assert is_language(name)


@pytest.mark.parametrize("name", [*OTHERS.split(), ""])
def test_other_names(name: str) -> None:
    assert not is_language(name)


@pytest.mark.parametrize("name", ["zh", "zh-Hant", "zh_CN", "ja", "th", "lao", "khm_Khmr", "my_zaw", "bo"])
def test_languages_without_spaces(name: str) -> None:
    assert not is_written_with_spaces(name)


@pytest.mark.parametrize("name", ["fr", "vi", "ko", "zho_Latn", "ja_rom", "tha1", "zu"])
def test_languages_with_spaces(name: str) -> None:
    assert is_written_with_spaces(name)
