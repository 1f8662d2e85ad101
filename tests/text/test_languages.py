"""Which names are languages."""

from __future__ import annotations

import pytest

from deltalm_ds.text.languages import is_language

CODES = "fr en gu ceb zh-Hant zh_Hans pt-BR en_XX hau_Latn es-419 hi_rom qaa"
OTHERS = "csv tsv bin idx txt log src tgt new bak wiki FR fra1 en-fr zh-tw x"


@pytest.mark.parametrize("name", CODES.split())
def test_codes(name: str) -> None:
    assert is_language(name)


@pytest.mark.parametrize("name", [*OTHERS.split(), ""])
def test_other_names(name: str) -> None:
    assert not is_language(name)
