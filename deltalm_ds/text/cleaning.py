"""What is left out of a corpus by option: too short, too long, of another script, unlike pairs."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from deltalm_ds.errors import UserError
from deltalm_ds.text.readers import DamagePolicy, Documents
from deltalm_ds.text.scripts import scripts_of, share_in_scripts


@dataclass(frozen=True, kw_only=True)
class CleaningSettings:
    """What to leave out; everything is counted in the report. By default nothing but blank text is."""

    damaged: DamagePolicy = "error"
    """Lines that are not UTF-8, no JSON or XML, or lack their fields: an error, or left out (skip)."""
    unicode_normalization: Literal["none", "NFC", "NFKC"] = "none"
    """Normal form of the text; SentencePiece models mostly make one of their own."""
    min_characters: int = 0
    """Documents, and pairs with a side, of fewer characters are left out."""
    max_characters: int | None = None
    """Documents, and pairs with a side, of more characters are left out."""
    max_length_ratio: float | None = None
    """Pairs of which one side has more than so many times the other's characters are left out."""
    drop_identical_sides: bool = False
    """Leave out pairs whose two sides are the same text."""
    min_script_share: float = 0.0
    """Documents, and pairs with a side, of which fewer letters than this share are in a script of their
    language are left out; 0.5 is usual. Languages of unknown script are kept."""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """exact: of equal documents of a source, within and across files, the first stays; held-out files come
    first. near: also of those that are alike (MinHash), which takes some times as long."""
    near_duplicate_threshold: float = 0.8
    """For near: the share of common five-word sequences (Jaccard) from which two are alike."""

    def __post_init__(self) -> None:
        if self.min_characters < 0:
            raise UserError(f"--min-characters must not be negative, not {self.min_characters}")
        if self.max_characters is not None and self.max_characters < max(self.min_characters, 1):
            raise UserError(f"--max-characters {self.max_characters} leaves nothing")
        if self.max_length_ratio is not None and not self.max_length_ratio >= 1:
            raise UserError(f"--max-length-ratio must be at least 1, not {self.max_length_ratio}")
        if not 0 <= self.min_script_share <= 1:
            raise UserError(f"--min-script-share must be within 0..1, not {self.min_script_share}")
        if not 0 < self.near_duplicate_threshold <= 1:
            raise UserError(
                "--near-duplicate-threshold must be above 0 and at most 1, not "
                f"{self.near_duplicate_threshold}"
            )


REASONS = (
    *("damaged", "blank", "too short", "too long", "unequal lengths", "identical sides", "wrong script"),
    *("duplicate", "near duplicate"),
)
"""Everything that documents can be left out for, in the order of the report."""


def clean(documents: Documents, settings: CleaningSettings) -> tuple[Documents, Counter[str]]:
    """The documents that stay, normalised, and how many were left out for which of `REASONS`."""
    left_out: Counter[str] = Counter()
    if settings.unicode_normalization != "none":
        form = settings.unicode_normalization
        documents.lines = [unicodedata.normalize(form, line).strip() for line in documents.lines]
    if not _judges(settings, len(documents.languages) == 2):
        return documents, left_out
    kept = Documents(documents.source, documents.languages)
    for lines in documents:
        reason = _reason(lines, documents.languages, settings)
        if reason is None:
            kept.add(lines)
        else:
            left_out[reason] += 1
    return kept, left_out


def _judges(settings: CleaningSettings, is_pairs: bool) -> bool:
    """Whether any option can leave a document out; most corpora are prepared without."""
    return (
        settings.min_characters > 0
        or settings.max_characters is not None
        or settings.min_script_share > 0
        or (is_pairs and (settings.max_length_ratio is not None or settings.drop_identical_sides))
    )


def _reason(lines: list[str], languages: tuple[str, ...], settings: CleaningSettings) -> str | None:
    is_pair = len(languages) == 2
    texts = lines if is_pair else ["\n".join(lines)]
    lengths = [len(text) for text in texts]
    if min(lengths) < settings.min_characters:
        return "too short"
    if settings.max_characters is not None and max(lengths) > settings.max_characters:
        return "too long"
    ratio = settings.max_length_ratio
    if is_pair and ratio is not None and max(lengths) > ratio * min(lengths):
        return "unequal lengths"
    if is_pair and settings.drop_identical_sides and texts[0] == texts[1]:
        return "identical sides"
    if settings.min_script_share > 0:
        for text, language in zip(texts, languages, strict=True):
            scripts = scripts_of(language)
            if scripts and share_in_scripts(text, scripts) < settings.min_script_share:
                return "wrong script"
    return None
