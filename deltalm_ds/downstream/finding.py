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
from deltalm_ds.downstream.wmt import sgml_name
from deltalm_ds.downstream.xml_files import tar_members
from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import expand_archives, is_read_me, pairs_in, suffix_of
from deltalm_ds.text.languages import is_language
from deltalm_ds.text.stored import StoredText

Format = Literal["aligned", "tsv", "jsonl", "xml", "sgml", "tar"]
_FORMATS: dict[str, Format] = {
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".xml": "xml",
    ".sgm": "sgml",
    ".sgml": "sgml",
    ".tar": "tar",
}
_KNOWN = (
    ".jsonl, .tsv, .xml, .sgm and line-aligned files such as train.en and train.fr, also .gz, .xz or .zst, "
    "and archives of them (.zip, .tar with .xml)"
)


@dataclass(frozen=True)
class DataFiles:
    """A file with examples, or several that hold them together."""

    format: Format
    """How they are read."""
    files: tuple[StoredText, ...]
    """One; the line-aligned ones, by name; or, of "sgml", sources and references."""
    languages: tuple[str, ...] = ()
    """What their names tell: no language, one, or those of source and target."""
    members: frozenset[str] = frozenset()
    """Of "tar": the members that hold the split."""


class _Found(NamedTuple):
    text: StoredText
    is_named: bool
    """By the user, and not found in a folder or an archive."""
    members: frozenset[str] = frozenset()
    """Of a .tar: those of the split."""


def find_data(paths: Sequence[Path], task: Task, split: Split, options: ReadingOptions) -> list[DataFiles]:
    """The files of a split, in the order of `paths` and, in folders and archives, of names.

    A file that is named holds the split; in folders and archives its name tells it, or the nearest folder's.
    UserError for a path that does not exist, a named file of unknown format, line-aligned files without a
    partner, and paths without any file of the split.
    """
    fields = {*_fields(options, task), *task.endings}
    data: list[DataFiles] = []
    for (format_, _, name), group in _groups(_expand(paths, split), fields).items():
        texts = _without_repetitions(group)
        if format_ == "sgml":
            data.extend(_sgml_pairs(name, texts))
            continue
        if format_ == "aligned" and len(texts) == 1:
            raise UserError(
                f"{texts[0]} has no partner: line-aligned files are two or more such as {name}.en and "
                f"{name}.fr in one folder"
            )
        data.append(DataFiles(format_, texts, _languages_in_name(texts[0]), group[0].members))
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
                inside = PurePosixPath(file.relative_to(path).as_posix())
                if file.is_file() and not any(part.startswith(".") for part in inside.parts):
                    yield from _of_file(file, path.resolve().name / inside, split, is_named=False)
        elif path.is_file():
            yield from _of_file(path, PurePosixPath(path.name), split, is_named=True)
        else:
            raise UserError(f"{path} does not exist: give files or folders with data")


def _of_file(file: Path, inside: PurePosixPath, split: Split, is_named: bool) -> Iterator[_Found]:
    """The file, or what of an archive belongs to the split: one is as good as a folder."""
    text = StoredText(file)
    if suffix_of(text) == ".tar":
        held = frozenset(name for name in tar_members(text) if split_of(inside / name) == split)
        if held:
            yield _Found(text, is_named, held)
        return
    for text in expand_archives(file):
        if is_named and not text.member:
            yield _Found(text, True)
        elif split_of(inside / text.member) == split and not is_read_me(text):
            yield _Found(text, False)


def _groups(texts: Iterable[_Found], fields: set[str]) -> dict[tuple[Format, Path, str], list[_Found]]:
    """Files that are read together, by format, folder and name; what in a folder is no data is left out."""
    groups: dict[tuple[Format, Path, str], list[_Found]] = defaultdict(list)
    for found in texts:
        text, suffix = found.text, suffix_of(found.text)
        if suffix == ".tar" and text.member:
            continue
        if suffix in (".sgm", ".sgml"):
            if (parts := sgml_name(text.plain_name)) is not None:
                groups["sgml", text.folder, parts.set].append(found)
                continue
            if found.is_named:
                raise UserError(f"{text} is not understood: call it SET-src.en.sgm or SET-ref.fr.sgm, say")
        elif suffix in _FORMATS:
            groups[_FORMATS[suffix], text.folder, text.plain_name].append(found)
        elif is_language(suffix[1:]) or suffix[1:] in fields:
            groups["aligned", text.folder, PurePosixPath(text.plain_name).stem].append(found)
        elif found.is_named:
            raise UserError(f"{text} is not understood: data are {_KNOWN}")
    return groups


def _without_repetitions(group: Iterable[_Found]) -> tuple[StoredText, ...]:
    """Each file once, by name. UserError for two of which only one can be meant."""
    by_name: dict[str, StoredText] = {}
    for found in group:
        text = by_name.setdefault(found.text.plain_name, found.text)
        if text != found.text:
            raise UserError(f"{text} and {found.text} are the same data twice: remove one")
    return tuple(by_name[name] for name in sorted(by_name))


def _sgml_pairs(name: str, texts: Sequence[StoredText]) -> list[DataFiles]:
    """Every source with every reference in another language of one test set."""
    sides: dict[str, dict[str, StoredText]] = {"src": {}, "ref": {}}
    for text in texts:
        parts = sgml_name(text.plain_name)
        assert parts is not None
        sides[parts.side][parts.language] = text
    pairs = [
        DataFiles("sgml", (source, reference), (language, other))
        for language, source in sides["src"].items()
        for other, reference in sides["ref"].items()
        if language != other
    ]
    if not pairs:
        raise UserError(
            f"{texts[0]} has no partner: test sets are files such as {name}-src.en.sgm and {name}-ref.fr.sgm"
        )
    return pairs


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
