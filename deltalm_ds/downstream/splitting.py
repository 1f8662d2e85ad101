"""Paragraphs split into sentences by rules, so that joining the pieces gives the paragraph back.

Where a rule is in doubt it does not split: two sentences at once are translated well, half a one is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from deltalm_ds.text.languages import is_written_with_spaces

# Chinese and Japanese, Devanagari, Tibetan, Burmese, Armenian, Ethiopic, Khmer: they mean nothing else, and a
# space need not follow.
_CLOSED = "。！？｡।॥།༎။։።៕"
# Latin, Greek, Cyrillic, Arabic, Urdu: they end a sentence where a space follows, and not always.
_OPEN = ".!?…‽;؟۔"
_CLOSERS, _OPENERS = "\"'”’»›」』）〉》】)\\]", "「『“‘《（"
_END = re.compile(
    # Behind a quotation the sentence may go on: 「はい。」と言った。
    rf"(?<![{_CLOSED}])[{_CLOSED}]+(?:(?![{_CLOSED}{_CLOSERS}])\s*|[{_CLOSERS}]+(?:\s+|(?=[{_OPENERS}])))"
    rf"|(?<![{_OPEN}])(?P<open>[{_OPEN}]+)[{_CLOSERS}]*\s+"
)
_GREEK_QUESTION = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]$")
_WORD_START = re.compile(r"[\s(\[«“„\"']")
_NEXT_WORD = re.compile(r"\W{0,4}(\w)")
_WORD_CHARACTERS = 32  # all that is looked at before a mark: a paragraph of marks must not take for ever
# Of English, French, German, Spanish, Italian, Portuguese, Dutch, Russian, Czech; single letters are beside.
_ABBREVIATIONS = """
    mr mrs ms dr prof st sr jr vs no nos vol fig al ca cf eg ie approx dept est gen col lt sgt capt rev hon
    gov sen rep mt mm mme mlle mgr ste av bd env nr bzw evtl ggf inkl usw vgl abb abs hr fr str sog zzgl sra
    srta dra ud uds pág núm art avda sig sigg dott ing avv pag eds mevr dhr blz tel resp гг ул им стр тыс млн
    млрд руб např tzv tj atd
"""


class Sentence(NamedTuple):
    """A piece of a paragraph."""

    text: str
    """The sentence, or "" for white space with which a paragraph begins."""
    separator: str
    """The white space behind it."""


def split_sentences(paragraph: str) -> list[Sentence]:
    """The sentences of a paragraph, whatever its language; their texts and separators joined give it back."""
    sentences: list[Sentence] = []
    start = len(paragraph) - len(paragraph.lstrip())
    if start:
        sentences.append(Sentence("", paragraph[:start]))
    for end in _END.finditer(paragraph, start):
        if end["open"] is None or _ends(paragraph, start, end):
            sentences.append(_sentence(paragraph[start : end.end()]))
            start = end.end()
    if start < len(paragraph):
        sentences.append(_sentence(paragraph[start:]))
    return sentences


def join_sentences(texts: Sequence[str], sentences: Sequence[Sentence], language: str | None = None) -> str:
    """`texts`, one for each of the sentences, with the separators of those between them.

    `language` is that of `texts`, where it is another: a space comes between sentences where it is written
    with spaces and there was none, and the other way round.
    """
    joined = []
    for number, (text, sentence) in enumerate(zip(texts, sentences, strict=True), 1):
        separator = sentence.separator
        if language is not None and sentence.text and separator in ("", " ") and number < len(sentences):
            separator = " " if is_written_with_spaces(language) else ""
        joined += [text, separator]
    return "".join(joined)


def _sentence(text: str) -> Sentence:
    bare = text.rstrip()
    return Sentence(bare, text[len(bare) :])


def _ends(paragraph: str, start: int, end: re.Match[str]) -> bool:
    """Whether a mark with a space behind it ends a sentence that began at `start`."""
    following = _NEXT_WORD.match(paragraph, end.end())
    if following and following[1].islower():
        return False
    if end["open"] == ";":
        return _GREEK_QUESTION.search(paragraph, start, end.start()) is not None
    if end["open"] != ".":
        return True
    before = paragraph[max(start, end.start() - _WORD_CHARACTERS) : end.start()]
    word = _WORD_START.split(before)[-1]
    is_ordinal = word.isdecimal() and len(word) <= 2
    is_initial = len(word) == 1 and word.isalpha()
    return not (is_ordinal or is_initial or "." in word or word.lower() in _ABBREVIATIONS.split())
