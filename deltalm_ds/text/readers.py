"""Documents and sentence pairs from files, in two steps: raw blocks read in order, then parsed anywhere.

`read_blocks` only looks for line ends and blank lines, fast enough to feed many processes; `parse_block` does
the rest (UTF-8, JSON, documents) for one block, knowing nothing of the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from deltalm_ds.errors import UserError
from deltalm_ds.text.compressed import TextFile
from deltalm_ds.text.inputs import Input, PairInput, TextInput
from deltalm_ds.text.languages import ADVICE, is_language

BLOCK_BYTES = 1 << 20
"""A block ends with the first document that brings it to this size."""

MAX_DOCUMENT_BYTES = 64 << 20
"""A longer line or document is taken for a mistake: memory is bounded by it."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Consecutive whole documents of one input, undecoded."""

    input: Input
    """Where it is from."""
    first_line: int
    """Number of its first line in the file, from 1."""
    offsets: tuple[int, ...]
    """Byte offset of that line in the text of each of the input's files."""
    lines: tuple[list[bytes], ...]
    """Its lines with their ends, for each of the input's files."""
    stored_bytes: int
    """Bytes on disk read for it; more or fewer than its text's where files are compressed."""

    @property
    def digest(self) -> str:
        """SHA-256 of its bytes."""
        return hashlib.sha256(b"".join(line for side in self.lines for line in side)).hexdigest()


class Document(NamedTuple):
    """A document, or a pair."""

    source: str
    """The source it belongs to: the language, or the pair's two with a hyphen."""
    languages: tuple[str, ...]
    """Its language, or the pair's two."""
    key: tuple[str, int, int]
    """What no other document has: name and number of its input, number of its first line."""
    lines: list[str]
    """Lines without their ends, none of them blank; a pair's are its source and its target."""


def read_blocks(inputs: Iterable[Input]) -> Iterator[Block]:
    """The blocks of all inputs, in order, holding one at a time. UserError for a file that cannot be read."""
    for entry in inputs:
        try:
            yield from _pair_blocks(entry) if isinstance(entry, PairInput) else _text_blocks(entry)
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}") from error


def parse_block(block: Block) -> Iterator[Document]:
    """The documents of a block, those without text left out.

    Lines are stripped of white space at both ends. A pair with a blank side is left out.
    UserError names file, line and byte offset of what is not UTF-8, no JSON, or lacks its fields.
    """
    entry = block.input
    if isinstance(entry, PairInput):
        yield from _parse_pairs(block, entry)
    elif entry.format == "jsonl":
        yield from _parse_json(block, entry)
    else:
        assert entry.language is not None
        document: list[str] = []
        first = block.first_line
        for number, line in _decoded(block, 0):
            if line:
                first = first if document else number
                document.append(line)
            if document and (not line or entry.format == "lines"):
                yield _text_document(entry, entry.language, first, document)
                document = []
        if document:
            yield _text_document(entry, entry.language, first, document)


def _raw_lines(file: TextFile) -> Iterator[bytes]:
    for line in iter(partial(file.readline, MAX_DOCUMENT_BYTES), b""):
        if len(line) == MAX_DOCUMENT_BYTES:
            raise UserError(
                f"{file.path} has a line of more than {MAX_DOCUMENT_BYTES:,} bytes: is it text? split it"
            )
        yield line


class _Meter:
    """Bytes on disk read since it was last asked."""

    def __init__(self, *files: TextFile) -> None:
        self._files = files
        self._before = 0

    def __call__(self) -> int:
        now = sum(file.stored_bytes_read for file in self._files)
        passed, self._before = now - self._before, now
        return passed


def _text_blocks(entry: TextInput) -> Iterator[Block]:
    lines: list[bytes] = []
    first_line, offset, size = 1, 0, 0
    with TextFile(entry.path) as file:
        meter = _Meter(file)
        for line in _raw_lines(file):
            lines.append(line)
            size += len(line)
            if size >= BLOCK_BYTES and (entry.format != "blocks" or line.isspace()):
                yield Block(entry, first_line, (offset,), (lines,), meter())
                first_line, offset = first_line + len(lines), offset + size
                lines, size = [], 0
            elif size > MAX_DOCUMENT_BYTES:
                raise UserError(
                    f"{entry.path} has no blank line within {MAX_DOCUMENT_BYTES:,} bytes of line "
                    f"{first_line}: if its documents are single lines, add --documents lines"
                )
        if lines:
            yield Block(entry, first_line, (offset,), (lines,), meter())


def _pair_blocks(entry: PairInput) -> Iterator[Block]:
    first_path, second_path = entry.paths
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    sizes, offsets, first_line = [0, 0], [0, 0], 1
    with TextFile(first_path) as first, TextFile(second_path) as second:
        meter = _Meter(first, second)
        for pair in zip_longest(_raw_lines(first), _raw_lines(second)):
            if pair[0] is None or pair[1] is None:
                count = first_line + len(sides[0]) - 1
                shorter, longer = entry.paths if pair[0] is None else reversed(entry.paths)
                raise UserError(
                    f"{shorter} ends after line {count} and {longer} goes on: pairs need files of equally "
                    "many lines; find the missing one"
                )
            for side, line in enumerate(pair):
                sides[side].append(line)
                sizes[side] += len(line)
            if sum(sizes) >= BLOCK_BYTES:
                yield Block(entry, first_line, tuple(offsets), sides, meter())
                first_line += len(sides[0])
                offsets = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
                sides, sizes = ([], []), [0, 0]
        if sides[0]:
            yield Block(entry, first_line, tuple(offsets), sides, meter())


def _decoded(block: Block, side: int) -> Iterator[tuple[int, str]]:
    """Line number and stripped text of every line of one file's part of a block."""
    offset = block.offsets[side]
    for number, line in enumerate(block.lines[side], start=block.first_line):
        content = line.removeprefix(_BYTE_ORDER_MARK) if offset == 0 else line
        try:
            yield number, content.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{block.input.paths[side]} is not UTF-8 at line {number}, byte offset "
                f"{offset + len(line) - len(content) + error.start}: convert it, with iconv for example"
            ) from None
        offset += len(line)


def _parse_pairs(block: Block, entry: PairInput) -> Iterator[Document]:
    name = entry.name
    for (number, first), (_, second) in zip(_decoded(block, 0), _decoded(block, 1), strict=True):
        if first and second:
            yield Document(name, entry.languages, (name, entry.ordinal, number), [first, second])


def _parse_json(block: Block, entry: TextInput) -> Iterator[Document]:
    for number, line in _decoded(block, 0):
        if not line:
            continue
        where = f"{entry.path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where} is not a JSON object on one line: correct or remove it") from None
        text = _field(record, entry.text_field, where, "--text-field")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"{where} has half a surrogate pair, which is no character: remove it") from None
        language = entry.language
        if entry.language_field is not None:
            language = _field(record, entry.language_field, where, "--language-field")
            if not is_language(language):
                raise UserError(f"{where}: {language!r} is no language code; {ADVICE}")
        assert language is not None
        lines = [part.strip() for part in text.split("\n")]
        if document := [part for part in lines if part]:
            yield _text_document(entry, language, number, document)


def _field(record: object, name: str, where: str, option: str) -> str:
    if not isinstance(record, dict) or name not in record:
        known = f"; it has {', '.join(sorted(record)[:8])}" if isinstance(record, dict) else ""
        raise UserError(f"{where} has no field {name!r}{known}: name the right one with {option}")
    value = record[name]
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is not text but {type(value).__name__}")
    return value


def _text_document(entry: TextInput, language: str, number: int, lines: list[str]) -> Document:
    return Document(language, (language,), (entry.name, entry.ordinal, number), lines)
