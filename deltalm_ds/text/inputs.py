"""What the files given to `prepare` are: text of one language, JSON lines, or the two sides of pairs."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deltalm_ds.errors import UserError
from deltalm_ds.text.compressed import plain_path
from deltalm_ds.text.languages import ADVICE, is_language

TextFormat = Literal["blocks", "lines", "jsonl"]

_VALIDATION_WORDS = {"valid", "validation", "dev"}
_TEST_WORDS = {"test"}
_ACCOMPANYING = ("readme", "license", "licence", "copying")
_TEXT_SUFFIX, _JSON_SUFFIX = ".txt", ".jsonl"


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How text files are to be read."""

    documents: Literal["blocks", "lines"] = "blocks"
    """What a document is in .txt files: a block between blank lines, or a line."""
    text_field: str = "text"
    """Field of a JSON line that holds the text."""
    language_field: str | None = None
    """Field of a JSON line that holds its language; None takes the language from the file's name."""


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """A file of monolingual text."""

    path: Path
    """The file."""
    format: TextFormat
    """What a document is."""
    language: str | None
    """Its language; None where each JSON line names its own."""
    held_out: bool
    """Whether all of it is for validation."""
    ordinal: int = 0
    """Its number among the inputs of its language, part of its documents' shuffle keys."""
    text_field: str = "text"
    """Field of a JSON line that holds the text."""
    language_field: str | None = None
    """Field of a JSON line that holds the language."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files to read."""
        return (self.path,)

    @property
    def name(self) -> str:
        """The source it belongs to; "*" where each line names its own."""
        return self.language or "*"


@dataclass(frozen=True, kw_only=True)
class PairInput:
    """Two files aligned line by line."""

    paths: tuple[Path, ...]
    """The two files, in the order of the languages."""
    languages: tuple[str, str]
    """Their languages, in alphabetical order."""
    held_out: bool
    """Whether all of it is for validation."""
    ordinal: int = 0
    """Its number among the inputs of its language pair, part of its pairs' shuffle keys."""

    @property
    def name(self) -> str:
        """The source it belongs to."""
        return "-".join(self.languages)


Input = TextInput | PairInput


def understand(paths: Sequence[Path], options: TextOptions) -> tuple[list[Input], list[Path]]:
    """The inputs that files, folders and glob patterns stand for, and the files left out.

    A .txt or .jsonl file is monolingual; one part of its name between dots is its language (fr.txt,
    wiki.fr.txt, fr.001.jsonl). Any two other files of one folder whose names differ only in their
    extensions, both language codes, are pairs (train.en and train.fr). Any of them may be
    compressed, with one more ending: .gz, .xz or .zst. A name with the word valid, validation or dev is held
    out for validation whole; in folders, test sets and read-me files are left out.
    Inputs are ordered by source and path, so neither the order of `paths` nor a source more changes the
    others. UserError for whatever does not fit.
    """
    files: dict[Path, Path] = {}
    left_out = []
    for file, found in _expand(paths):
        if found and _left_out(file):
            left_out.append(file)
        else:
            files.setdefault(file.resolve(), file)
    chosen = sorted(files.values())
    texts = [path for path in chosen if plain_path(path).suffix in (_TEXT_SUFFIX, _JSON_SUFFIX)]
    pairs = [path for path in chosen if plain_path(path).suffix not in (_TEXT_SUFFIX, _JSON_SUFFIX)]
    inputs: list[Input] = [_text_input(path, options) for path in texts]
    inputs.extend(_pair_inputs(pairs))
    if not inputs:
        raise UserError(
            "no text among the inputs: give files such as fr.txt, train.en and train.fr, or folders"
        )
    return _numbered(inputs), sorted(left_out)


def _expand(paths: Iterable[Path]) -> Iterable[tuple[Path, bool]]:
    """Every file, and whether it was found in a folder rather than named."""
    for path in paths:
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
            if not found:
                raise UserError(f"the folder {path} has no files")
            yield from ((file, True) for file in found)
        elif path.is_file():
            yield path, False
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
            named = [match for match in matches if match.is_file()]
            if not named:
                raise UserError(f"{path} does not exist and matches no file")
            yield from ((match, False) for match in named)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _left_out(file: Path) -> bool:
    return file.name.lower().startswith(_ACCOMPANYING) or not _TEST_WORDS.isdisjoint(_words(file))


def _words(file: Path) -> set[str]:
    return set(plain_path(file).stem.replace("-", ".").replace("_", ".").split("."))


def _held_out(file: Path) -> bool:
    return not _VALIDATION_WORDS.isdisjoint(_words(file))


def _text_input(path: Path, options: TextOptions) -> TextInput:
    plain = plain_path(path)
    is_json = plain.suffix == _JSON_SUFFIX
    if is_json and options.language_field is not None:
        language = None
    else:
        languages = [part for part in plain.stem.split(".") if is_language(part)]
        if len(languages) != 1:
            found = "no language" if not languages else f"{len(languages)} languages"
            raise UserError(f"{path}: {found} in its name; call it fr{plain.suffix}, say: {ADVICE}")
        language = languages[0]
    return TextInput(
        path=path,
        format="jsonl" if is_json else options.documents,
        language=language,
        held_out=_held_out(path),
        text_field=options.text_field,
        language_field=options.language_field if is_json else None,
    )


def _pair_inputs(paths: Sequence[Path]) -> list[PairInput]:
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        plain = plain_path(path)
        if not is_language(plain.suffix[1:]):
            raise UserError(
                f"{path} is not understood: monolingual text is called fr.txt or fr.jsonl, pairs are two "
                "files such as train.en and train.fr; leave others out with a pattern such as 'DIR/*.txt'"
            )
        groups[path.parent, plain.stem].append(path)
    inputs = []
    for group in groups.values():
        if len(group) == 1:
            plain = plain_path(group[0])
            raise UserError(
                f"{group[0]} has no partner: pairs are two files such as {plain.stem}.en and "
                f"{plain.stem}.fr in one folder, and monolingual text is called {plain.suffix[1:]}.txt"
            )
        if len(group) > 2:
            names = ", ".join(path.name for path in group)
            raise UserError(f"{group[0].parent}: which two of {names} are pairs? give two at a time")
        first, second = sorted(group, key=lambda path: plain_path(path).suffix)
        inputs.append(
            PairInput(
                paths=(first, second),
                languages=(plain_path(first).suffix[1:], plain_path(second).suffix[1:]),
                held_out=_held_out(first),
            )
        )
    return inputs


def _numbered(inputs: list[Input]) -> list[Input]:
    """The inputs in order, each with its number among those of its source."""
    numbers: dict[str, int] = defaultdict(int)
    numbered: list[Input] = []
    for entry in sorted(inputs, key=lambda entry: (type(entry).__name__, entry.name, entry.paths)):
        numbered.append(replace(entry, ordinal=numbers[entry.name]))
        numbers[entry.name] += 1
    return numbered
