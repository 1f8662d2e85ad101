"""What the files given to `prepare` are: text of one language, or sentence pairs, in which format."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from deltalm_ds.errors import UserError
from deltalm_ds.text.languages import ADVICE, is_language
from deltalm_ds.text.stored import ARCHIVE_SUFFIX, StoredText, members

Format = Literal["blocks", "lines", "jsonl", "aligned", "tsv", "tmx"]

_VALIDATION_WORDS = {"valid", "validation", "dev"}
_TEST_WORDS = {"test"}
_ACCOMPANYING = ("readme", "license", "licence", "copying")
_TEXT_SUFFIX, _JSON_SUFFIXES = ".txt", (".jsonl", ".json")
_PAIR_FORMATS: dict[str, Format] = {".tsv": "tsv", ".tmx": "tmx"}


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How files are to be read."""

    documents: Literal["blocks", "lines"] = "blocks"
    """What a document is in .txt files: a block between blank lines, or a line."""
    text_field: str = "text"
    """Field of a JSON line that holds the text."""
    language_field: str | None = None
    """Field of a JSON line that holds its language; None takes the language from the file's name."""
    pair_fields: tuple[str, str] | None = None
    """Fields of a JSON line that hold the two sides of a pair; None: they are called as the languages are."""
    columns: tuple[int, int] = (1, 2)
    """Columns of a .tsv file that hold the two sides, from 1, in the order of the languages in its name."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """A file of text, a file of pairs, or two files of pairs."""

    files: tuple[StoredText, ...]
    """The file, or the two sides of pairs aligned line by line, in the order of the languages."""
    format: Format
    """Monolingual: "blocks", "lines" or "jsonl". Pairs: "aligned", "tsv", "tmx" or "jsonl"."""
    languages: tuple[str, ...]
    """Its language, or a pair's two in alphabetical order; none where each JSON line names its own."""
    held_out: bool
    """Whether all of it is for validation."""
    fields: tuple[str, ...] = ()
    """Of "jsonl": the field with the text, or the two with a pair's sides. Of "tsv": the columns, from 1."""
    language_field: str | None = None
    """Field of a JSON line that holds its language."""
    ordinal: int = 0
    """Its number among the inputs of its source, part of its documents' shuffle keys."""

    @property
    def name(self) -> str:
        """The source it belongs to; "*" where each line names its own."""
        return "-".join(self.languages) or "*"

    @property
    def is_pairs(self) -> bool:
        """Whether it holds sentence pairs."""
        return len(self.languages) == 2


def understand(paths: Sequence[Path], options: TextOptions) -> tuple[list[Input], list[StoredText]]:
    """The inputs that files, folders and glob patterns stand for, and what was left out.

    One part of a name between dots is its language (fr.txt, wiki.fr.txt, fr.001.jsonl) or its two languages
    (en-fr.tsv, en-fr.tmx, books.en-fr.jsonl). Any two other files of one folder or .zip whose names differ
    only in their endings, both language codes, are pairs (train.en and train.fr). A file may be compressed,
    with one more ending: .gz, .xz or .zst; a .zip stands for its members. A name with the word valid,
    validation or dev is held out for validation whole; in folders and archives, test sets and read-me files
    are left out, and in archives what is no text. Inputs are ordered by source and file, so neither the order
    of `paths` nor a source more changes the others. UserError for whatever does not fit.
    """
    texts: dict[StoredText, None] = {}
    left_out = []
    for text, found in _expand(paths):
        if (found and accompanies(text)) or (text.member and not _is_text(text)):
            left_out.append(text)
        else:
            texts.setdefault(text)
    inputs, sides = [], []
    for text in _without_repetitions(texts):
        languages = () if _names_its_languages(text, options) else _languages_in_name(text)
        if suffix_of(text) in (_TEXT_SUFFIX, *_JSON_SUFFIXES, *_PAIR_FORMATS):
            inputs.append(single_file(text, languages, _held_out(text), options))
        else:
            sides.append(text)
    inputs.extend(aligned_files(sides, _held_out))
    if not inputs:
        raise UserError(
            "no text among the inputs: give files such as fr.txt, train.en and train.fr, or folders"
        )
    return numbered(inputs), sorted(left_out)


def single_file(text: StoredText, languages: tuple[str, ...], held_out: bool, options: TextOptions) -> Input:
    """The input that is one file: of `languages`, in the format that its ending says."""
    suffix = suffix_of(text)
    if suffix in _PAIR_FORMATS and len(languages) != 2:
        raise UserError(f"{text}: pairs of which languages? call it en-fr{suffix}, say: {ADVICE}")
    swapped = len(languages) == 2 and languages[0] > languages[1]
    chosen: Format = options.documents
    fields: tuple[str, ...] = ()
    if suffix in _PAIR_FORMATS:
        chosen = _PAIR_FORMATS[suffix]
        fields = tuple(map(str, options.columns)) if chosen == "tsv" else languages
    elif suffix in _JSON_SUFFIXES:
        chosen = "jsonl"
        fields = (options.pair_fields or languages) if len(languages) == 2 else (options.text_field,)
    elif len(languages) == 2:
        raise UserError(f"{text}: pairs are .tsv, .tmx, .jsonl or two files, such as train.en and train.fr")
    return Input(
        files=(text,),
        format=chosen,
        languages=tuple(sorted(languages)),
        held_out=held_out,
        fields=fields[::-1] if swapped else fields,
        language_field=options.language_field if chosen == "jsonl" and not languages else None,
    )


def _names_its_languages(text: StoredText, options: TextOptions) -> bool:
    return options.language_field is not None and suffix_of(text) in _JSON_SUFFIXES


def expand_archives(path: Path) -> list[StoredText]:
    """The texts that a file stands for: itself, or the members of a .zip."""
    return members(path) if path.suffix == ARCHIVE_SUFFIX else [StoredText(path)]


def _expand(paths: Iterable[Path]) -> Iterable[tuple[StoredText, bool]]:
    """Every text, and whether it was found in a folder or archive rather than named."""
    for path in paths:
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
            if not files:
                raise UserError(f"the folder {path} has no files")
            found = True
        elif path.is_file():
            files, found = [path], False
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
            files, found = [match for match in matches if match.is_file()], False
            if not files:
                raise UserError(f"{path} does not exist and matches no file")
        for file in files:
            yield from ((text, found or bool(text.member)) for text in expand_archives(file))


def _without_repetitions(texts: Iterable[StoredText]) -> list[StoredText]:
    """In order, each file once, however it was named."""
    unique: dict[StoredText, StoredText] = {}
    for text in texts:
        unique.setdefault(replace(text, path=text.path.resolve()), text)
    return sorted(unique.values())


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def suffix_of(text: StoredText) -> str:
    """The ending of a text's name, less that of a compressed file: .txt of fr.txt.gz."""
    return PurePosixPath(text.plain_name).suffix


def _stem(text: StoredText) -> str:
    return PurePosixPath(text.plain_name).stem


def _is_text(text: StoredText) -> bool:
    suffix = suffix_of(text)
    return suffix in (_TEXT_SUFFIX, *_JSON_SUFFIXES, *_PAIR_FORMATS) or is_language(suffix[1:])


def accompanies(text: StoredText) -> bool:
    """Whether a name says that it is no text to train on: a read-me file, a licence, a test set."""
    return is_read_me(text) or not _TEST_WORDS.isdisjoint(_words(text))


def is_read_me(text: StoredText) -> bool:
    """Whether a name says that it is about a data set and no part of it: a read-me file, a licence."""
    return text.plain_name.lower().startswith(_ACCOMPANYING)


def _words(text: StoredText) -> set[str]:
    return set(_stem(text).replace("-", ".").replace("_", ".").split("."))


def _held_out(text: StoredText) -> bool:
    return not _VALIDATION_WORDS.isdisjoint(_words(text))


def _languages_in_name(text: StoredText) -> tuple[str, ...]:
    """The one language, or the two of pairs, that a part of the name between dots is; for sides, none."""
    suffix = suffix_of(text)
    if suffix not in (_TEXT_SUFFIX, *_JSON_SUFFIXES, *_PAIR_FORMATS):
        return ()
    parts = _stem(text).split(".")
    languages = [(part,) for part in parts if is_language(part)]
    pairs = [pair for part in parts if not is_language(part) for pair in pairs_in(part)]
    wanted = pairs if suffix in _PAIR_FORMATS else languages or (pairs if suffix in _JSON_SUFFIXES else [])
    if len(wanted) != 1:
        one, several, example = (
            ("pair of languages", "pairs of languages", f"en-fr{suffix}")
            if suffix in _PAIR_FORMATS
            else ("language", "languages", f"fr{suffix}")
        )
        found = f"{len(wanted)} {several}" if wanted else f"no {one}"
        raise UserError(f"{text}: {found} in its name; call it {example}, say: {ADVICE}")
    return wanted[0]


def pairs_in(part: str) -> list[tuple[str, str]]:
    """How a part of a name can be read as two languages with a hyphen: en-fr, en-zh-Hant, en_XX-fr_XX."""
    words = part.split("-")
    splits = (("-".join(words[:cut]), "-".join(words[cut:])) for cut in range(1, len(words)))
    return [(first, second) for first, second in splits if is_language(first) and is_language(second)]


def aligned_files(
    texts: Sequence[StoredText],
    held_out: Callable[[StoredText], bool],
    languages: tuple[str, ...] | None = None,
) -> list[Input]:
    """The inputs that are two files, told by their endings; of the `languages`, where they are given."""
    groups: dict[tuple[Path, str], list[StoredText]] = defaultdict(list)
    for text in texts:
        ending = suffix_of(text)[1:]
        if not (ending in languages if languages else is_language(ending)):
            raise UserError(
                f"{text} is not understood: monolingual text is called fr.txt or fr.jsonl, pairs en-fr.tsv, "
                "en-fr.tmx or two files such as train.en and train.fr; leave others out with a pattern such "
                "as 'DIR/*.txt'"
            )
        groups[text.folder, _stem(text)].append(text)
    inputs = []
    for group in groups.values():
        if len(group) == 1:
            stem, suffix = _stem(group[0]), suffix_of(group[0])
            raise UserError(
                f"{group[0]} has no partner: pairs are two files such as {stem}.en and {stem}.fr in one "
                f"folder, and monolingual text is called {suffix[1:]}.txt"
            )
        first, second = sorted(group, key=suffix_of)[:2]
        if len(group) > 2 or suffix_of(first) == suffix_of(second):
            names = ", ".join(
                (PurePosixPath(text.member) if text.member else text.path).name for text in group
            )
            raise UserError(f"{group[0].folder}: which two of {names} are pairs? give two at a time")
        inputs.append(
            Input(
                files=(first, second),
                format="aligned",
                languages=(suffix_of(first)[1:], suffix_of(second)[1:]),
                held_out=held_out(first),
            )
        )
    return inputs


def numbered(inputs: Iterable[Input]) -> list[Input]:
    """The inputs in order, pairs first, each with its number among those of its source."""
    numbers: dict[str, int] = defaultdict(int)
    in_order: list[Input] = []
    for entry in sorted(inputs, key=lambda entry: (not entry.is_pairs, entry.name, entry.files)):
        in_order.append(replace(entry, ordinal=numbers[entry.name]))
        numbers[entry.name] += 1
    return in_order
