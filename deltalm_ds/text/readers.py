"""Documents and sentence pairs from the bytes of a piece, in every format that `prepare` reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.etree import ElementTree

from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import Input
from deltalm_ds.text.languages import ADVICE, is_language
from deltalm_ds.text.pieces import Piece
from deltalm_ds.text.stored import TextReader
from deltalm_ds.text.tmx import sides_of, units_in

_BYTE_ORDER_MARK = "\ufeff"
_READ_BYTES = 1 << 20

DamagePolicy = Literal["error", "skip"]


@dataclass
class Documents:
    """Documents of one source, or pairs, in input order; none of their lines is blank."""

    source: str
    """The language, or the pair's two with a hyphen."""
    languages: tuple[str, ...]
    """The language, or the pair's two."""
    lines: list[str] = field(default_factory=list)
    """The lines of all documents, one after the other; of pairs source, target, source, target, …"""
    num_lines: list[int] = field(default_factory=list)
    """Lines of every document; 2 of every pair."""

    def __len__(self) -> int:
        return len(self.num_lines)

    def add(self, lines: Sequence[str]) -> None:
        """Append a document."""
        self.lines.extend(lines)
        self.num_lines.append(len(lines))

    def __iter__(self) -> Iterator[list[str]]:
        """The lines of every document."""
        start = 0
        for count in self.num_lines:
            yield self.lines[start : start + count]
            start += count


@dataclass(frozen=True)
class Parsed:
    """What is in a piece."""

    documents: list[Documents]
    """By source."""
    left_out: Counter[str]
    """What was left out and how often: "damaged" lines or pairs, "blank" pairs of which a side is blank."""


def parse(piece: Piece, damaged: DamagePolicy = "error") -> Parsed:
    """The documents of a piece, those without text left out.

    Lines are stripped of white space at both ends. What is not UTF-8, no JSON or XML, or lacks its fields is
    counted and skipped, or, with `damaged` "error", a UserError that names file, line and byte offset.
    """
    left_out: Counter[str] = Counter()
    by_source: dict[str, Documents] = {}

    def of(languages: tuple[str, ...]) -> Documents:
        name = "-".join(languages)
        if name not in by_source:
            by_source[name] = Documents(name, languages)
        return by_source[name]

    _Parser(piece, damaged, left_out, of).run()
    return Parsed([documents for documents in by_source.values() if len(documents)], left_out)


class _Parser:
    def __init__(
        self,
        piece: Piece,
        damaged: DamagePolicy,
        left_out: Counter[str],
        of: Callable[[tuple[str, ...]], Documents],
    ) -> None:
        self._piece, self._entry = piece, piece.input
        self._damaged, self._left_out, self._of = damaged, left_out, of

    def run(self) -> None:
        contents = self._piece.read()
        if self._entry.format == "blocks":
            self._blocks(self._lines(0, contents[0]))
        elif self._entry.format == "lines":
            lines = [line for line in self._lines(0, contents[0]) if line]
            documents = self._of(self._entry.languages)
            documents.lines, documents.num_lines = lines, [1] * len(lines)
        elif self._entry.format == "aligned":
            self._pairs(zip(*map(self._lines, range(2), contents), strict=True))
        elif self._entry.format == "tmx":
            self._pairs(self._units(contents[0]))
        elif self._entry.format == "tsv":
            self._pairs(self._records(contents[0], self._columns))
        elif self._entry.is_pairs:
            self._pairs(self._records(contents[0], self._json_pair))
        else:
            for languages, text in self._records(contents[0], self._json_text):
                if document := [line for part in text.split("\n") if (line := part.strip())]:
                    self._of(languages).add(document)

    def _lines(self, file: int, content: bytes) -> list[str | None]:
        """The stripped lines of one file's bytes, decoded; None for one that is damaged."""
        try:
            lines = content.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            return self._lines_with_damage(file, content)
        if not lines[-1]:
            lines.pop()  # what is behind the last line end
        if lines and self._piece.offsets[file] == 0:
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return [line.strip() for line in lines]

    def _lines_with_damage(self, file: int, content: bytes) -> list[str | None]:
        lines: list[str | None] = []
        offset = self._piece.offsets[file]
        for line in content.removesuffix(b"\n").split(b"\n"):
            try:
                text = line.decode("utf-8")
                lines.append(text.removeprefix(_BYTE_ORDER_MARK if offset == 0 else "").strip())
            except UnicodeDecodeError as error:
                reason = "is not UTF-8", "convert it, with iconv for example"
                self._report(file, offset + error.start, *reason)
                lines.append(None)
            offset += len(line) + 1
        return lines

    def _report(self, file: int, offset: int, what: str, advice: str) -> None:
        """Count a damaged place of a file, or raise the UserError that names it."""
        self._left_out["damaged"] += 1
        if self._damaged == "error":
            text = self._entry.files[file]
            raise UserError(
                f"{text} {what} at line {line_number(self._entry, file, offset):,}, byte offset {offset:,}: "
                f"{advice} (--damaged skip leaves out and counts such lines)"
            )

    def _blocks(self, lines: list[str | None]) -> None:
        documents, document = self._of(self._entry.languages), []
        for line in lines:
            if line:
                document.append(line)
            elif line == "" and document:
                documents.add(document)
                document = []
        if document:
            documents.add(document)

    def _pairs(self, pairs: Iterator[tuple[str | None, ...]]) -> None:
        documents = self._of(self._entry.languages)
        for first, second in pairs:
            if first and second:
                documents.lines += (first, second)
            elif first is not None and second is not None:
                self._left_out["blank"] += 1
            elif first is second:
                self._left_out["damaged"] -= 1  # both sides of one pair
        documents.num_lines = [2] * (len(documents.lines) // 2)

    def _records(self, content: bytes, read: Callable[[str], tuple]) -> Iterator[tuple]:
        """What `read` makes of every line that is not blank."""
        offset = self._piece.offsets[0]
        for line in content.removesuffix(b"\n").split(b"\n"):
            try:
                text = line.decode("utf-8").removeprefix(_BYTE_ORDER_MARK if offset == 0 else "")
                if text and not text.isspace():
                    yield read(text)
            except UnicodeDecodeError as error:
                self._report(0, offset + error.start, "is not UTF-8", "convert it, with iconv for example")
            except _LineError as error:
                self._report(0, offset, *error.args)
            offset += len(line) + 1

    def _columns(self, line: str) -> tuple[str, str]:
        columns = line.split("\t")
        first, second = (int(number) - 1 for number in self._entry.fields)
        if max(first, second) >= len(columns):
            wanted = " and ".join(sorted(self._entry.fields, key=int))
            raise _LineError(
                f"has {len(columns)} columns where {wanted} are wanted",
                "name the right ones with --columns",
            )
        return columns[first].strip(), columns[second].strip()

    def _json_pair(self, line: str) -> tuple[str, str]:
        record = _record(line)
        inner = record.get("translation")
        if isinstance(inner, dict) and self._entry.fields[0] not in record:
            record = inner
        first, second = (_text(record, name, "--pair-fields") for name in self._entry.fields)
        return " ".join(first.split()), " ".join(second.split())

    def _json_text(self, line: str) -> tuple[tuple[str, ...], str]:
        record = _record(line)
        text = _text(record, self._entry.fields[0], "--text-field")
        languages = self._entry.languages
        if self._entry.language_field is not None:
            language = _text(record, self._entry.language_field, "--language-field")
            if not is_language(language):
                raise _LineError(f"names the language {language!r}, which is none", ADVICE)
            languages = (language,)
        return languages, text

    def _units(self, content: bytes) -> Iterator[tuple[str, str]]:
        for place, unit in units_in(content):
            try:
                if (sides := sides_of(unit, self._entry.fields)) is not None:
                    yield sides
                else:
                    self._left_out["blank"] += 1
            except (ElementTree.ParseError, UnicodeDecodeError, RecursionError) as error:
                what = f"is no TMX ({error})"
                self._report(0, self._piece.offsets[0] + place, what, "correct or remove this <tu>")


class _LineError(Exception):
    """What is wrong with a line, and what to do about it."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)


def _record(line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise _LineError("is not a JSON object on one line", "correct or remove it")
    return record


def _text(record: dict[str, object], name: str, option: str) -> str:
    if name not in record:
        known = f", only {', '.join(map(ascii, sorted(record)[:8]))}" if record else ""
        raise _LineError(f"has no field {name!r}{known}", f"name the right one with {option}")
    value = record[name]
    if not isinstance(value, str):
        raise _LineError(
            f"has in the field {name!r} no text but {type(value).__name__}", "correct or remove it"
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _LineError("has half a surrogate pair, which is no character", "remove it") from None
    return value


def line_number(entry: Input, file: int, offset: int) -> int:
    """The line, from 1, of a byte of an input's text: it is read again up to there."""
    count = 1
    with TextReader(entry.files[file]) as reader:
        while offset > 0 and (content := reader.read(min(offset, _READ_BYTES))):
            count += content.count(b"\n")
            offset -= len(content)
    return count
