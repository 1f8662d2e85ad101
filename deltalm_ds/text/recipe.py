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
          - path: opus/*.en-fr.zip

What a recipe names lies in its own folder, or in one that the user gives: a path that leads out of it, by ..
or by a link, is refused.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import (
    Input,
    TextOptions,
    aligned_files,
    expand_archives,
    numbered,
    pairs_in,
    single_file,
    suffix_of,
)
from deltalm_ds.text.languages import ADVICE, is_language
from deltalm_ds.text.stored import StoredText

RECIPE_SUFFIXES = (".yaml", ".yml")
_MAX_BYTES = 16 << 20
_SINGLE_FILES = (".txt", ".jsonl", ".json", ".tsv", ".tmx")


class _Files(BaseModel):
    """Files of a source that are read in the same way."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    """A path or a pattern in the recipe's folder; a .zip stands for its members."""
    documents: Literal["blocks", "lines"] = "blocks"
    text_field: str = "text"
    pair_fields: list[str] | None = Field(default=None, min_length=2, max_length=2)
    columns: list[int] = Field(default=[1, 2], min_length=2, max_length=2)
    split: Literal["train", "valid"] = "train"


class _Source(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    files: list[_Files] = Field(min_length=1)


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sources: dict[str, _Source] = Field(min_length=1)


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and whose files exist."""

    inputs: list[Input]
    """The inputs of all sources."""
    weights: dict[str, float]
    """The weight of every source."""
    left_out: list[StoredText]
    """Members of archives that are no text of their source."""


def read_recipe(path: Path, folder: Path | None = None) -> Recipe:
    """Read a recipe; its files are looked for in `folder`, or in its own.

    UserError for what is no recipe, names an unknown option or language, a file that does not exist, or one
    outside the folder.
    """
    content = _content(path)
    root = folder or path.parent
    inputs: list[Input] = []
    weights: dict[str, float] = {}
    left_out: list[StoredText] = []
    for name, source in content.sources.items():
        languages = _languages(path, name)
        source_name = "-".join(sorted(languages))
        if source_name in weights:
            raise UserError(f"{path} has the source {source_name} twice: join the two")
        weights[source_name] = source.weight
        for files in source.files:
            found, others = _inputs(path, root, name, languages, files)
            inputs += found
            left_out += others
    return Recipe(numbered(inputs), weights, left_out)


def _content(path: Path) -> _Recipe:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} has more than {_MAX_BYTES:,} bytes: it is no recipe")
        loaded: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        return _Recipe.model_validate(loaded)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())}): correct it") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {place}: {first['msg']}; docs/data.md says what a recipe holds") from None


class _Loader(yaml.SafeLoader):
    """Plain data only, each key once, and no aliases, by which a short file can stand for a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"the key {sorted(repeated)[0]!r} is there twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def _languages(path: Path, name: str) -> tuple[str, ...]:
    if is_language(name):
        return (name,)
    if len(pairs := pairs_in(name)) == 1:
        return pairs[0]
    raise UserError(f"{path}: the source {name!r} is neither a language nor two with a hyphen; {ADVICE}")


def _inputs(
    recipe: Path, root: Path, name: str, languages: tuple[str, ...], files: _Files
) -> tuple[list[Input], list[StoredText]]:
    """The inputs that an entry stands for, and the members of archives that are none."""
    options = TextOptions(
        documents=files.documents,
        text_field=files.text_field,
        pair_fields=(files.pair_fields[0], files.pair_fields[1]) if files.pair_fields else None,
        columns=(files.columns[0], files.columns[1]),
    )
    if min(files.columns) < 1:
        raise UserError(f"{recipe}: {name}: columns are counted from 1, not {files.columns}")
    held_out = files.split == "valid"
    singles, sides, left_out = [], [], []
    for file in _matches(recipe, root, name, files.path):
        for text in expand_archives(file):
            suffix = suffix_of(text)
            if len(languages) == 2 and suffix[1:] in languages:
                sides.append(text)
            elif suffix in _SINGLE_FILES:
                singles.append(text)
            elif text.member:
                left_out.append(text)
            else:
                raise UserError(
                    f"{recipe}: {name}: {file} has none of the endings {', '.join(_SINGLE_FILES)} (for "
                    "pairs, also those of its languages): rename it"
                )
    inputs = [single_file(text, languages, held_out, options) for text in singles]
    inputs += aligned_files(sides, lambda _: held_out, languages)
    if not inputs:
        raise UserError(f"{recipe}: {name}: {files.path} holds no text of this source")
    return inputs, left_out


def _matches(recipe: Path, root: Path, name: str, pattern: str) -> list[Path]:
    inside = root.resolve()
    found = []
    outside = f"leads out of {root}: name a folder that holds all files by --recipe-folder"
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise UserError(f"{recipe}: {name}: {pattern} {outside}")
    for match in sorted(glob.glob(str(root / pattern), recursive=True)):  # noqa: PTH207
        path = Path(match)
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(inside):
            raise UserError(f"{recipe}: {name}: {path} {outside}")
        found.append(path)
    if not found:
        raise UserError(f"{recipe}: {name}: no file matches {root / pattern}")
    return found
