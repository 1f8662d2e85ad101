"""What is scored: the files of a direction, from the command line or from a manifest of many.

    directions:
      - source_language: fr
        target_language: en
        hypotheses: outputs/fr-en.txt
        references: [test/fr-en.en]
        sources: test/fr-en.fr        # this and what follows may be missing
        baseline: earlier/fr-en.txt
        groups: test/categories.txt
        seen: test/seen.txt
        name: news                    # in the table; fr-en if it is missing

Paths are those of the manifest's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import langcodes
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.settings import ScoreSettings
from deltalm_ds.text.languages import ADVICE, is_language
from deltalm_ds.text.plain_yaml import read_yaml
from deltalm_ds.text.printable import printable


@dataclass(frozen=True)
class Direction:
    """Files of line-aligned examples."""

    name: str
    """In tables and JSON."""
    source_language: str | None
    """None where only one direction is scored."""
    language: str
    """That outputs should be in."""
    hypotheses: Path
    references: tuple[Path, ...]
    sources: Path | None
    baseline: Path | None
    groups: Path | None
    seen: Path | None

    @property
    def from_english(self) -> bool:
        """Whether it is one of en→X."""
        return _is_english(self.source_language) and not _is_english(self.language)

    @property
    def to_english(self) -> bool:
        """Whether it is one of X→en."""
        known = self.source_language is not None
        return known and not _is_english(self.source_language) and _is_english(self.language)


def directions_of(settings: ScoreSettings) -> list[Direction]:
    """The direction of the command line, or those of its manifest; UserError for a manifest that is none."""
    if settings.manifest is not None:
        return _read_manifest(settings.manifest)
    assert settings.hypotheses is not None
    assert settings.language is not None
    direction = Direction(
        name="all",
        source_language=None,
        language=settings.language,
        hypotheses=settings.hypotheses,
        references=settings.references,
        sources=settings.sources,
        baseline=settings.baseline,
        groups=settings.groups,
        seen=settings.seen,
    )
    return [direction]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Entry(_Model):
    source_language: str
    target_language: str
    hypotheses: str
    references: list[str] = Field(min_length=1)
    sources: str | None = None
    baseline: str | None = None
    groups: str | None = None
    seen: str | None = None
    name: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_possible(self) -> _Entry:
        for language in (self.source_language, self.target_language):
            if not is_language(language):
                raise ValueError(f"{language!r} is no language; {ADVICE}")
        if self.seen is not None and self.groups is None:
            raise ValueError("seen says which of the groups training has seen: name groups too")
        return self


class _Manifest(_Model):
    directions: list[_Entry] = Field(min_length=1)


def _read_manifest(path: Path) -> list[Direction]:
    try:
        entries = _Manifest.model_validate(read_yaml(path)).directions
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        what = printable(f"{place}: {first['msg']}")
        raise UserError(f"{path}: {what}; docs/scoring.md says what a manifest holds") from None
    directions = [_direction(entry, path.parent) for entry in entries]
    names = [direction.name for direction in directions]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path} has the direction {printable(name)} twice: give each its own name")
    return directions


def _direction(entry: _Entry, folder: Path) -> Direction:
    def optional(name: str | None) -> Path | None:
        return None if name is None else folder / name

    return Direction(
        name=entry.name or f"{entry.source_language}-{entry.target_language}",
        source_language=entry.source_language,
        language=entry.target_language,
        hypotheses=folder / entry.hypotheses,
        references=tuple(folder / name for name in entry.references),
        sources=optional(entry.sources),
        baseline=optional(entry.baseline),
        groups=optional(entry.groups),
        seen=optional(entry.seen),
    )


def _is_english(language: str | None) -> bool:
    return language is not None and langcodes.Language.get(language).language == "en"
