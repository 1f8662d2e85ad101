"""What scores hide: outputs that are empty, in the wrong language, or copies of their source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.identification import LanguageIdentifier
from deltalm_ds.text.scripts import scripts_of, share_in_scripts

_LEAST_IN_SCRIPT = 0.5


@dataclass(frozen=True)
class OutputCounts:
    """Outputs of one system; every output is empty, or in the wrong or the right language."""

    num_examples: int
    num_empty: int
    num_wrong_script: int
    """Not empty, and less than half of the letters are of the language's scripts."""
    num_wrong_language: int
    """Those, and those that were identified as another language."""
    num_copies: int | None
    """Not empty, and the source but for case and white space; None without sources."""
    identified: dict[str, int]
    """How many outputs were taken for which language; nothing without samples of languages."""
    basis: str
    """How the language was told."""

    @property
    def right_language(self) -> float:
        """Share of all outputs, from 0 to 1, that are in the right language as far as `basis` goes."""
        return 1 - (self.num_empty + self.num_wrong_language) / self.num_examples


def count_outputs(
    hypotheses: Sequence[str],
    language: str,
    sources: Sequence[str] | None,
    identifier: LanguageIdentifier | None,
) -> OutputCounts:
    """Count the outputs that should be in `language`; UserError where the identifier does not know it."""
    if identifier is not None and language not in identifier.languages:
        raise UserError(f"no sample of {language}: add --language-samples {language}=FILE")
    scripts = scripts_of(language)
    num_empty = num_wrong_script = num_wrong_language = 0
    identified: Counter[str] = Counter()
    for text in hypotheses:
        if not text.strip():
            num_empty += 1
            continue
        wrong_script = bool(scripts) and share_in_scripts(text, scripts) < _LEAST_IN_SCRIPT
        found = None if identifier is None else identifier.identify(text)
        if found is not None:
            identified[found] += 1
        num_wrong_script += wrong_script
        num_wrong_language += wrong_script or found not in (None, language)
    copies = None
    if sources is not None:
        copies = sum(_plain(a) == _plain(b) != "" for a, b in zip(hypotheses, sources, strict=True))
    return OutputCounts(
        num_examples=len(hypotheses),
        num_empty=num_empty,
        num_wrong_script=num_wrong_script,
        num_wrong_language=num_wrong_language,
        num_copies=copies,
        identified=dict(sorted(identified.items())),
        basis=_basis(scripts, identifier),
    )


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _basis(scripts: Sequence[str], identifier: LanguageIdentifier | None) -> str:
    parts = [f"script:{'+'.join(scripts) or 'unknown'}"]
    if identifier is not None:
        languages = "+".join(identifier.languages)
        parts.append(f"identified:{languages} by letters 1-3|sample:{identifier.num_characters} characters")
    return "|".join(parts)
