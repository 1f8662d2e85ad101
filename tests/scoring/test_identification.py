"""Telling languages apart, learned from text of this project."""

from __future__ import annotations

import pytest

from deltalm_ds.demo import write_sample
from deltalm_ds.errors import UserError
from deltalm_ds.scoring.identification import LanguageIdentifier
from deltalm_ds.scoring.outputs import count_outputs

LATIN = ("de", "en", "es", "fr", "pt")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The lines of the embedded sample by language."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    found = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "mono").glob("*.txt")}
    return {language: [line for line in text.split("\n") if line] for language, text in found.items()}


@pytest.fixture(scope="module")
def identifier(texts: dict[str, list[str]]) -> LanguageIdentifier:
    """All but the last lines of every language were learned."""
    return LanguageIdentifier({language: "\n".join(lines[:-50]) for language, lines in texts.items()})


def test_unread_lines(texts: dict[str, list[str]], identifier: LanguageIdentifier) -> None:
    assert len(texts) == 10
    for language, lines in texts.items():
        found = [identifier.identify(line) for line in lines[-50:]]
        assert found.count(language) >= 49, (language, found)


def test_by_hand() -> None:
    """The likelier letters win; what is not a letter, and case, say nothing."""
    identifier = LanguageIdentifier({"aa": "ab " * 900, "bb": "cb " * 900})
    assert identifier.languages == ("aa", "bb")
    assert identifier.num_characters == 2701
    assert [identifier.identify(text) for text in ("a", "C!", "12 CB 34", "bb a")] == ["aa", "bb", "bb", "aa"]


def test_nothing_to_tell_by() -> None:
    identifier = LanguageIdentifier({"aa": "ab " * 900, "bb": "cb " * 900})
    assert [identifier.identify(text) for text in ("", " ", "12.3", "λ")] == [None, None, None, None]


def test_longer_samples_weigh_no_more() -> None:
    """Text of neither language goes to neither for its sample's length."""
    short, long = {"aa": "ab " * 900}, {"bb": "cb " * 90_000}
    assert LanguageIdentifier({**short, **long}).num_characters == 2701
    equal = LanguageIdentifier({**short, "bb": "cb " * 900})
    assert (equal._log_shares == LanguageIdentifier({**short, **long})._log_shares).all()


def test_impossible_samples() -> None:
    with pytest.raises(UserError, match="two at least"):
        LanguageIdentifier({"aa": "ab " * 900})
    with pytest.raises(UserError, match="sample of bb has 5 letters"):
        LanguageIdentifier({"aa": "ab " * 900, "bb": "cbc"})


def test_outputs_are_counted(identifier: LanguageIdentifier) -> None:
    """Every output is empty, right or wrong."""
    hypotheses = ["le chat dort dans la maison", "", "the cat sleeps in the house", "Кошка спит", "42", " "]
    sources = ["x", "", "The cat  sleeps in the house", "y", "z", ""]
    counts = count_outputs(hypotheses, "fr", sources, identifier)
    assert (counts.num_examples, counts.num_empty, counts.num_copies) == (6, 2, 1)
    assert (counts.num_wrong_script, counts.num_wrong_language) == (1, 2)
    assert counts.right_language == pytest.approx(2 / 6)
    assert counts.identified == {"en": 1, "fr": 1, "ru": 1}
    assert counts.basis.startswith("script:Latn|identified:")


def test_outputs_by_script_alone() -> None:
    counts = count_outputs(["a cat", "кот", "кот cat"], "ru", None, None)
    assert (counts.num_wrong_script, counts.num_wrong_language, counts.num_copies) == (1, 1, None)
    assert (counts.basis, counts.identified) == ("script:Cyrl", {})
    assert count_outputs(["кот"], "qaa", None, None).right_language == 1


def test_language_without_sample(identifier: LanguageIdentifier) -> None:
    with pytest.raises(UserError, match="add --language-samples fi=FILE"):
        count_outputs(["a"], "fi", None, identifier)
