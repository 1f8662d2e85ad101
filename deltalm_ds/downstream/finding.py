"""Which files of the given paths hold a split of a task's data, and in which format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.splits import WORDS, Split, split_of
from deltalm_ds.downstream.task import Task
from deltalm_ds.downstream.templates import Template
from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import expand_archives, is_read_me, pairs_in, suffix_of
from deltalm_ds.text.languages import is_language
from deltalm_ds.text.stored import StoredText

Format = Literal["aligned", "tsv", "jsonl"]
_FORMATS: dict[str, Format] = {".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl"}
_KNOWN = ".jsonl, .tsv and line-aligned files such as train.en and train.fr"


@dataclass(frozen=True)
class DataFiles:
    """A file with examples, or several that hold them together."""

    format: Format
    """How they are read."""
    files: tuple[StoredText, ...]
    """One, or the line-aligned ones, by name."""
    languages: tuple[str, ...]
    """What their names tell: no language, one, or those of source and target."""


class _Found(NamedTuple):
    text: StoredText
    is_named: bool
    """By the user, and not found in a folder or an archive."""


def find_data(paths: Sequence[Path], task: Task, split: Split, options: ReadingOptions) -> list[DataFiles]:
    """The files of a split, in the order of `paths` and, in folders and archives, of names.

    A file that is named holds the split; in folders and archives its name tells it, or the nearest folder's.
    UserError for a path that does not exist, a named file of unknown format, line-aligned files without a
    partner, and paths without any file of the split.
    """
    fields = {*_fields(options, task), *task.endings}
    data = [
        DataFiles(format_, tuple(texts), _languages_in_name(texts[0]))
        for (format_, _, _), texts in _groups(_expand(paths, split), fields).items()
    ]
    for entry in data:
        _check(entry)
    if not data:
        raise UserError(_nothing(paths, split))
    return data


def _fields(options: ReadingOptions, task: Task) -> Iterator[str]:
    yield from Template(options.source_template or task.source_template).fields
    yield from Template(options.target_template or task.target_template).fields


def _expand(paths: Iterable[Path], split: Split) -> Iterator[_Found]:
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                inside = path.name / PurePosixPath(file.relative_to(path).as_posix())
                if file.is_file() and not any(part.startswith(".") for part in inside.parts[1:]):
                    yield from _of_file(file, inside, split, is_named=False)
        elif path.is_file():
            yield from _of_file(path, PurePosixPath(path.name), split, is_named=True)
        else:
            raise UserError(f"{path} does not exist: give files or folders with data")


def _of_file(file: Path, inside: PurePosixPath, split: Split, is_named: bool) -> Iterator[_Found]:
    """The file, or the members of an archive, which is as good as a folder."""
    for text in expand_archives(file):
        if is_named and not text.member:
            yield _Found(text, True)
        elif split_of(inside / text.member if text.member else inside) == split and not is_read_me(text):
            yield _Found(text, False)


def _groups(texts: Iterable[_Found], fields: set[str]) -> dict[tuple[Format, Path, str], list[StoredText]]:
    """Files that are read together, by format, folder and name; what in a folder is no data is left out."""
    groups: dict[tuple[Format, Path, str], list[StoredText]] = defaultdict(list)
    for text, is_named in texts:
        suffix = suffix_of(text)
        if suffix in _FORMATS:
            group = groups[_FORMATS[suffix], text.folder, text.plain_name]
        elif is_language(suffix[1:]) or suffix[1:] in fields:
            group = groups["aligned", text.folder, PurePosixPath(text.plain_name).stem]
        elif is_named:
            raise UserError(f"{text} is not understood: data are {_KNOWN}")
        else:
            continue
        if text not in group:
            group.append(text)
    return groups


def _check(data: DataFiles) -> None:
    """UserError for a line-aligned file without a partner, or files of which only one can be meant."""
    first = data.files[0]
    by_name: dict[str, StoredText] = {}
    for text in data.files:
        if text.plain_name in by_name:
            raise UserError(f"{by_name[text.plain_name]} and {text} are the same file twice: remove one")
        by_name[text.plain_name] = text
    if data.format == "aligned" and len(data.files) == 1:
        stem = PurePosixPath(first.plain_name).stem
        raise UserError(
            f"{first} has no partner: line-aligned files are two or more such as {stem}.en and {stem}.fr in "
            "one folder"
        )


def _languages_in_name(text: StoredText) -> tuple[str, ...]:
    """The one pair, or else the one language, that a part of a name between dots is."""
    parts = PurePosixPath(text.plain_name).stem.split(".")
    pairs = [pair for part in parts if not is_language(part) for pair in pairs_in(part)]
    languages = [(part,) for part in parts if is_language(part)]
    if len(pairs) == 1:
        return pairs[0]
    return languages[0] if len(languages) == 1 else ()


def _nothing(paths: Sequence[Path], split: Split) -> str:
    words = ", ".join(WORDS[split])
    or_none = ", or none of another split's" if split == "train" else ""
    return (
        f"no data for {split} in {', '.join(map(str, paths))}: looked for {_KNOWN}, with one of the words "
        f"{words} in the name of the file or its folder{or_none}"
    )
