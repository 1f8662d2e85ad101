"""Rows: what every format is read into, and TSV and JSONL, which hold them as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from deltalm_ds.downstream.lines import read_lines
from deltalm_ds.downstream.templates import FieldValue, one_line
from deltalm_ds.errors import UserError
from deltalm_ds.text.printable import printable
from deltalm_ds.text.stored import StoredText

SOURCE_LANGUAGE, TARGET_LANGUAGE = "source_language", "target_language"
"""Fields that hold a row's languages; `lang` holds the target's, and the source's where they are one."""
REFERENCES = "references"
"""The field of GEM's rows with all that is right, of which the field `target` is one."""


class Place(NamedTuple):
    """Where a row is from."""

    text: StoredText
    """The file."""
    number: int
    """Its line or, in XML, its number among the examples, from 1."""
    unit: str = "line"
    """What is numbered."""

    def __str__(self) -> str:
        return f"{self.text}, {self.unit} {self.number:,}"


class Row(NamedTuple):
    """An example as its file has it."""

    fields: Mapping[str, FieldValue]
    """Texts by name, each on one line. What JSONL has beside texts and lists of texts is left out."""
    place: Place
    """Where it is from."""


def read_tsv(text: StoredText, columns: tuple[str, ...] | None) -> Iterator[Row]:
    """The rows of a file of columns with tabs between them, blank lines left out.

    `columns` names them; None: the first line does. There is no quoting. UserError, with the line, for a row
    with more or fewer columns than names.
    """
    for number, line in enumerate(read_lines(text), 1):
        if not line.strip(" \r"):
            continue
        values = [one_line(value) for value in line.split("\t")]
        if columns is None:
            columns = tuple(values)
            if len(set(columns)) < len(columns) or not all(columns):
                raise UserError(
                    f"{text}: its first line {line[:60]!r} does not name columns: name them with --columns"
                )
        elif len(values) != len(columns):
            raise UserError(
                f"{Place(text, number)}, has {len(values)} columns where there are {len(columns)} names "
                f"({printable(', '.join(columns))}): correct it, or name the columns with --columns"
            )
        else:
            yield Row(dict(zip(columns, values, strict=True)), Place(text, number))


def read_jsonl(text: StoredText) -> Iterator[Row]:
    """The rows of a file with a JSON object on each line, blank lines left out.

    {"translation": {"en": …, "fr": …}} is read as {"en": …, "fr": …}, and a list `references` that is not
    empty is read as the field `target` as well. UserError, with the line, for what is no object.
    """
    for number, line in enumerate(read_lines(text), 1):
        if line and not line.isspace():
            place = Place(text, number)
            yield Row(_fields_of(line, place), place)


def _fields_of(line: str, place: Place) -> dict[str, FieldValue]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{place}, is not a JSON object on one line: correct or remove it")
    if isinstance(record.get("translation"), dict):
        record = {**record, **record["translation"]}
    fields: dict[str, FieldValue] = {}
    for name, value in record.items():
        if isinstance(value, str):
            fields[name] = _text(value, name, place)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            fields[name] = tuple(_text(item, name, place) for item in value)
        elif name in ("id", "gem_id") and isinstance(value, int):
            fields[name] = str(value)
    if fields.get(REFERENCES):
        fields["target"] = fields[REFERENCES]
    return fields


def _text(value: str, name: str, place: Place) -> str:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{place}, has half a surrogate pair in the field {name!r}, which is no character: remove it"
            ) from None
    return one_line(value)
