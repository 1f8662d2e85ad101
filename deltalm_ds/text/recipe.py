"""A recipe: a YAML file that names the sources of a corpus, their files, how to read them, and their weights.

    sources:
      fr:                          # a language …
        weight: 2                  # of its share in the mixture; 1 if it says nothing
        files:
          - path: cc100/fr.txt.xz
          - path: ccnet/*/fr_*.json.gz
            text_field: raw_content
      en-fr:                       # … or two
        files:
          - path: opus/*/en-fr.txt.zip

What many sources have in common is said once, by templates; their files come to those of `sources`:

    templates:
      - languages: [af, am, ar]
        optional: true             # not everybody has all of it; without this, what is missing is an error
        files:
          - path: cc100/{language}.txt.xz
      - pairs: [[en, af], [en, am]]
        files:
          - path: ccaligned/en_XX-{second}_*.tsv.xz
            columns: [3, 5]
          - path: opus/*/{first}-{second}.tmx.gz

A file belongs to a source once. What a recipe names lies in its own folder, or in one that the user gives: a
path that leads out of it, by .. or by a link, is refused.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import (
    Input,
    TextOptions,
    accompanies,
    aligned_files,
    expand_archives,
    numbered,
    pairs_in,
    single_file,
    suffix_of,
)
from deltalm_ds.text.languages import ADVICE, is_language
from deltalm_ds.text.plain_yaml import read_yaml
from deltalm_ds.text.printable import printable
from deltalm_ds.text.stored import StoredText

RECIPE_SUFFIXES = (".yaml", ".yml")
_MONOLINGUAL_FILES, _FILES_OF_PAIRS = (".txt", ".jsonl", ".json"), (".jsonl", ".json", ".tsv", ".tmx")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Files(_Model):
    """Files of a source that are read in the same way."""

    path: str
    """A path or a pattern in the recipe's folder; a .zip stands for its members."""
    documents: Literal["blocks", "lines"] = "blocks"
    text_field: str = "text"
    pair_fields: list[str] | None = Field(default=None, min_length=2, max_length=2)
    columns: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 2], min_length=2, max_length=2)
    split: Literal["train", "valid"] = "train"

    @field_validator("path")
    @classmethod
    def _is_printable(cls, path: str) -> str:
        if printable(path) != path:
            raise ValueError("a path has no control characters")
        return path

    def options(self) -> TextOptions:
        first, second = self.columns
        return TextOptions(
            documents=self.documents,
            text_field=self.text_field,
            pair_fields=(self.pair_fields[0], self.pair_fields[1]) if self.pair_fields else None,
            columns=(first, second),
        )


class _Source(_Model):
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    files: list[_Files] = []


class _Template(_Model):
    """Files that many sources have, with {language}, or {first} and {second}, in their paths."""

    languages: list[str] = []
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    optional: bool = False
    files: list[_Files] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> _Template:
        if bool(self.languages) == bool(self.pairs):
            raise ValueError("a template has either languages or pairs")
        names = ("{language}",) if self.languages else ("{first}", "{second}")
        for files in self.files:
            filled = files.path
            for name in names:
                filled = filled.replace(name, "")
            if filled == files.path or "{" in filled or "}" in filled:
                raise ValueError(f"the path {files.path} needs {' or '.join(names)}, and no other braces")
        return self

    def filled(self) -> Iterator[tuple[tuple[str, ...], _Files]]:
        """For every source its language, or two, and its files."""
        for language in self.languages:
            for files in self.files:
                path = files.path.replace("{language}", language)
                yield (language,), files.model_copy(update={"path": path})
        for first, second in self.pairs:
            for files in self.files:
                path = files.path.replace("{first}", first).replace("{second}", second)
                yield (first, second), files.model_copy(update={"path": path})


class _Recipe(_Model):
    sources: dict[str, _Source] = {}
    templates: list[_Template] = []


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and whose files exist."""

    inputs: list[Input]
    """The inputs of all sources."""
    weights: dict[str, float]
    """The weight of every source that has files."""
    left_out: list[StoredText]
    """Members of archives that are no text of their source."""
    without_files: list[str]
    """Sources of optional templates of which no file exists."""


@dataclass(frozen=True)
class _Entry:
    """Files of one source."""

    languages: tuple[str, ...]
    files: _Files
    optional: bool

    @property
    def source(self) -> str:
        return "-".join(sorted(self.languages))


def read_recipe(path: Path, folder: Path | None = None) -> Recipe:
    """Read a recipe; its files are looked for in `folder`, or in its own.

    UserError for what is no recipe, names an unknown option or language, a file that does not exist, one that
    a source has already, or one outside the folder.
    """
    root = folder or path.parent
    weights, entries = _sources(path)
    inputs: list[Input] = []
    left_out: list[StoredText] = []
    used: set[tuple[str, Path]] = set()
    for entry in entries:
        found = _matches(path, root, entry)
        for file in found:
            if (entry.source, file.resolve()) in used:
                raise UserError(f"{path}: {entry.source}: {file} belongs to it twice: name each file once")
            used.add((entry.source, file.resolve()))
        if found:
            here, others = _inputs(path, entry, found)
            inputs += here
            left_out += others
    if not inputs:
        raise UserError(f"{path}: none of its files is in {root}: name their folder by --recipe-folder")
    present = {entry.name for entry in inputs}
    return Recipe(
        numbered(inputs),
        {source: weight for source, weight in weights.items() if source in present},
        left_out,
        sorted(weights.keys() - present),
    )


def _sources(path: Path) -> tuple[dict[str, float], list[_Entry]]:
    """The weights of all sources, and their files."""
    content = _content(path)
    weights: dict[str, float] = {}
    entries: list[_Entry] = []
    for name, source in content.sources.items():
        languages = _languages(path, name)
        source_name = "-".join(sorted(languages))
        if source_name in weights:
            raise UserError(f"{path} has the source {source_name} twice: join the two")
        weights[source_name] = source.weight
        entries += [_Entry(languages, files, optional=False) for files in source.files]
    for template in content.templates:
        for languages, files in template.filled():
            for language in languages:
                if not is_language(language):
                    raise UserError(f"{path}: a template names {language!r}, no language; {ADVICE}")
            entries.append(_Entry(languages, files, template.optional))
    if unused := sorted(weights.keys() - {entry.source for entry in entries}):
        raise UserError(f"{path}: the source {unused[0]} names no files: add some, or leave it out")
    for entry in entries:
        weights.setdefault(entry.source, 1.0)
    return weights, entries


def _content(path: Path) -> _Recipe:
    try:
        return _Recipe.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        what = printable(f"{place}: {first['msg']}")
        raise UserError(f"{path}: {what}; docs/data.md says what a recipe holds") from None


def _languages(path: Path, name: str) -> tuple[str, ...]:
    if is_language(name):
        return (name,)
    if len(pairs := pairs_in(name)) == 1:
        return pairs[0]
    raise UserError(f"{path}: the source {name!r} is neither a language nor two with a hyphen; {ADVICE}")


def _inputs(recipe: Path, entry: _Entry, found: list[Path]) -> tuple[list[Input], list[StoredText]]:
    """The inputs that files stand for, and the members of archives that are none."""
    languages, held_out = entry.languages, entry.files.split == "valid"
    known = _FILES_OF_PAIRS if len(languages) == 2 else _MONOLINGUAL_FILES
    singles, sides, left_out = [], [], []
    for file in found:
        for text in expand_archives(file):
            suffix = suffix_of(text)
            if text.member and accompanies(text):
                left_out.append(text)
            elif len(languages) == 2 and suffix[1:] in languages:
                sides.append(text)
            elif suffix in known:
                singles.append(text)
            elif text.member:
                left_out.append(text)
            else:
                endings = ", ".join(known) + (" and those of its languages" if len(languages) == 2 else "")
                raise UserError(
                    f"{recipe}: {entry.source}: {file} has none of the endings {endings}: rename it"
                )
    inputs = [single_file(text, languages, held_out, entry.files.options()) for text in singles]
    inputs += aligned_files(sides, lambda _: held_out, languages)
    if not inputs:
        raise UserError(f"{recipe}: {entry.source}: {entry.files.path} holds no text of this source")
    return inputs, left_out


def _matches(recipe: Path, root: Path, entry: _Entry) -> list[Path]:
    """The files of an entry that exist, in order."""
    pattern, where = entry.files.path, f"{recipe}: {entry.source}"
    outside = f"leads out of {root}: name a folder that holds all files by --recipe-folder"
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise UserError(f"{where}: {pattern} {outside}")
    matches = sorted(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
    found = [root / match for match in matches if (root / match).is_file()]
    for file in found:
        if not file.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{where}: {file} {outside}")
    if not found and not entry.optional:
        raise UserError(f"{where}: no file matches {root / pattern}: correct the path or fetch the file")
    return found
