"""WebNLG: sets of triples and texts that tell them (https://gitlab.com/shimorina/webnlg-dataset)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from deltalm_ds.downstream.rows import SOURCE_LANGUAGE, TARGET_LANGUAGE, Place, Row
from deltalm_ds.downstream.templates import one_line
from deltalm_ds.errors import UserError
from deltalm_ds.text.stored import StoredText

TRIPLES_LANGUAGE = "en"
"""Triples are English, whatever the language of the texts; and so are texts that name none."""


def webnlg_rows(root: Element, text: StoredText) -> Iterator[Row]:
    """The rows of a <benchmark>: of every entry one for each language that it has texts in.

    Fields: `triples`, "S | p | O ; S | p | O" of the modified triples with spaces for underscores; `text`,
    all texts of the language; `category`; `id`, the entry's eid; both languages. UserError for an entry
    without triples, a triple that has not three parts, and a file without entries.
    """
    number = 0
    for number, entry in enumerate(root.iter("entry"), 1):
        place = Place(text, number, "entry")
        texts: dict[str, list[str]] = defaultdict(list)
        for lex in entry.iter("lex"):
            if told := one_line("".join(lex.itertext())):
                texts[lex.get("lang") or TRIPLES_LANGUAGE].append(told)
        common = {
            "triples": _linearised(entry, place),
            "category": entry.get("category") or "",
            "id": entry.get("eid") or "",
            SOURCE_LANGUAGE: TRIPLES_LANGUAGE,
        }
        for language, several in texts.items():
            yield Row({**common, TARGET_LANGUAGE: language, "text": tuple(several)}, place)
    if not number:
        raise UserError(f"{text} has no <entry>: is it WebNLG?")


def _linearised(entry: Element, place: Place) -> str:
    triples = [one_line((triple.text or "").replace("_", " ")) for triple in entry.iter("mtriple")]
    wrong = [triple for triple in triples if triple.count("|") != 2]
    if wrong or not triples:
        what = f"the triple {wrong[0]!r}, which is not S | p | O" if wrong else "no <mtriple>"
        raise UserError(f"{place}, has {what}: correct it")
    return " ; ".join(triples)
