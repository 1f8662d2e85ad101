"""WMT's test sets: a pair of SGML files (to 2020) or one XML file (since 2021)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from deltalm_ds.downstream.rows import SOURCE_LANGUAGE, TARGET_LANGUAGE, Place, Row
from deltalm_ds.downstream.templates import one_line
from deltalm_ds.errors import UserError
from deltalm_ds.text.languages import is_language
from deltalm_ds.text.printable import printable
from deltalm_ds.text.stored import StoredText, TextReader

MAX_SGML_BYTES = 128 << 20
"""A larger file is refused: memory is bounded by it, times about ten."""

# newstest2014-fren-src.en.sgm, newstest2009-ref.fr.sgm, newstest2019-ende-ref.de.sgm
_NAME = re.compile(r"(?P<set>.+)-(?P<side>src|ref)\.(?P<language>[^.]+)\.sgml?")
# No parser reads it: `&` stands bare, attributes lack quotes, what is open is not always closed.
_TAG = re.compile(r"<(?P<end>/?)(?P<name>doc|seg|srcset|refset)\b(?P<attributes>[^>]*)>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"""(?P<name>\w+)\s*=\s*(?:"(?P<value>[^"]*)"|(?P<bare>[^\s>"]+))""")
_ENTITY = re.compile(r"&(?:(amp|lt|gt|quot|apos)|#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6}));")
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class SgmlName(NamedTuple):
    """What the name of an SGML file tells."""

    set: str
    """The test set, "newstest2014-fren"."""
    side: str
    """ "src" or "ref"."""
    language: str


def sgml_name(name: str) -> SgmlName | None:
    """The parts of a name such as newstest2014-fren-src.en.sgm; None for another."""
    match = _NAME.fullmatch(name)
    if match is None or not is_language(match["language"]):
        return None
    return SgmlName(match["set"], match["side"], match["language"])


def read_sgml(files: Sequence[StoredText], languages: Sequence[str]) -> Iterator[Row]:
    """The rows of two files, sources and references, segments matched by document and number.

    Fields: `source`; `target`, one text for every <refset>; `id`, "document:segment"; both languages.
    UserError for a segment without an end or without a reference, and for references without a source.
    """
    source, reference = files
    references: dict[tuple[str, str], list[str]] = {}
    for name, segment in _segments(reference):
        references.setdefault(name, []).append(segment)
    for number, (name, segment) in enumerate(_segments(source), 1):
        place = Place(source, number, "segment")
        if name not in references:
            raise UserError(f"{place}, {_joined(*name)}, is not in {reference}: are the two of one test set?")
        yield _row(name, segment, references.pop(name), languages, place)
    if references:
        name = next(iter(references))
        raise UserError(
            f"{reference}: the segment {_joined(*name)} is not in {source}: are the two of one test set?"
        )


def _segments(text: StoredText) -> Iterator[tuple[tuple[str, str], str]]:
    """Document and number, and the text, of every segment."""
    with TextReader(text) as reader:
        content = reader.read(MAX_SGML_BYTES + 1)
    if len(content) > MAX_SGML_BYTES:
        raise UserError(f"{text} has more than {MAX_SGML_BYTES:,} bytes: split it")
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{text}, line {line:,}, is not UTF-8: convert the file, with iconv for example"
        ) from None
    document, opened, found = "", None, False
    for tag in _TAG.finditer(decoded):
        kind, is_end = tag["name"].lower(), bool(tag["end"])
        if opened is not None and not (kind == "seg" and is_end):
            line = decoded.count("\n", 0, opened.start()) + 1
            raise UserError(
                f"{text}, line {line:,}, has a <seg> without an end: correct it or fetch it again"
            )
        if kind == "doc" and not is_end:
            document = _attribute(tag["attributes"], "docid")
        elif kind == "seg" and not is_end:
            opened, found = tag, True
        elif kind == "seg" and opened is not None:
            segment = decoded[opened.end() : tag.start()]
            opened_attributes, opened = opened["attributes"], None
            yield (document, _attribute(opened_attributes, "id")), one_line(_ENTITY.sub(_character, segment))
    if opened is not None or not found:
        raise UserError(f"{text} {'ends within a <seg>' if found else 'has no <seg>'}: fetch it again")


def wmt_rows(root: Element, text: StoredText) -> Iterator[Row]:
    """The rows of a <dataset>: of every segment one for each language that it has references in.

    Fields as `read_sgml` gives them; `target` has one text for every <ref> of the language. UserError for a
    document without one source, and for a segment without a reference.
    """
    number = 0
    for document in root.iter("doc"):
        sources = document.findall("src")
        if len(sources) != 1 or not sources[0].get("lang"):
            raise UserError(f"{text}: the document {document.get('id')!r} has no <src lang=…>: correct it")
        references: dict[str, list[dict[str, str]]] = defaultdict(list)
        for reference in document.findall("ref"):
            references[reference.get("lang") or ""].append(dict(_xml_segments(reference)))
        for name, segment in _xml_segments(sources[0]):
            number += 1
            place = Place(text, number, "segment")
            for language, several in references.items():
                if any(name not in one for one in several):
                    raise UserError(f"{place}, {_joined(document.get('id'), name)}, has no reference: add it")
                languages = sources[0].get("lang") or "", language
                targets = [one[name] for one in several]
                yield _row((document.get("id") or "", name), segment, targets, languages, place)


def _xml_segments(side: Element) -> Iterator[tuple[str, str]]:
    for segment in side.iter("seg"):
        yield segment.get("id") or "", one_line("".join(segment.itertext()))


def _row(
    name: tuple[str, str], source: str, targets: Sequence[str], languages: Sequence[str], place: Place
) -> Row:
    sides = dict(zip((SOURCE_LANGUAGE, TARGET_LANGUAGE), languages, strict=True))
    return Row({"source": source, "target": tuple(targets), "id": _joined(*name), **sides}, place)


def _joined(document: str | None, segment: str) -> str:
    return printable(f"{document or ''}:{segment}")


def _attribute(attributes: str, wanted: str) -> str:
    for match in _ATTRIBUTE.finditer(attributes):
        if match["name"].lower() == wanted:
            return match["value"] or match["bare"] or ""
    return ""


def _character(entity: re.Match[str]) -> str:
    """What a character entity stands for; one of no character stays as it is."""
    name, decimal, hexadecimal = entity.groups()
    if name:
        return _ENTITIES[name]
    number = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(number) if number <= 0x10FFFF and not 0xD800 <= number < 0xE000 else entity[0]
