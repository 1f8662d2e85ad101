"""Puts frames into words: one phrase file a language, and the rules all of them share.

`phrases/LANGUAGE.json` holds tables of ready-made phrases (noun phrases in the case the verbs want, verb
phrases in the third person), so nothing is inflected here. Three notations are expanded:

    {slot}        what the pattern is about: an object, a name, a place
    [he/she]      the form for a man and for a woman, by the person of the clause
    {verb} {rest} the first word of the verb phrase, and what follows it, for German and Dutch word order
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from deltalm_ds.demo.frames import (
    Action,
    Because,
    Clause,
    Frame,
    Joined,
    Mention,
    Person,
    Says,
    Statement,
    Therefore,
    Where,
)

FOLDER = Path(__file__).parent
LANGUAGES = tuple(sorted(path.stem for path in (FOLDER / "phrases").glob("*.json")))

_BY_GENDER = re.compile(r"\[([^/\]]+)/([^/\]]+)\]")
_SPACES = re.compile(" +")


class Language:
    """One language of the sample."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.tables: dict[str, dict[str, str]] = json.loads(
            (FOLDER / "phrases" / f"{code}.json").read_text(encoding="utf-8")
        )

    def keys(self) -> dict[str, tuple[str, ...]]:
        """The keys of every table, in the file's order."""
        return {table: tuple(phrases) for table, phrases in self.tables.items()}

    def paragraphs(self) -> list[list[str]]:
        """The free paragraphs, as sentences; those of all languages translate each other line by line."""
        text = (FOLDER / "paragraphs" / f"{self.code}.txt").read_text(encoding="utf-8")
        return [block.splitlines() for block in text.strip().split("\n\n")]

    def sentence(self, frame: Frame) -> str:
        """The frame as one line: a sentence, or a question with its answer."""
        if isinstance(frame, Statement):
            return self._finish(self._statement(frame))
        if isinstance(frame, Joined):
            first, second = self._clause(frame.first), self._clause(frame.second)
            return self._finish(self._pattern(frame.joint, first=first, second=second))
        if isinstance(frame, Because):
            clause, state = self._clause(frame.clause), self.tables["states"][frame.state]
            return self._finish(self._pattern("because", clause=clause, state=state))
        if isinstance(frame, Therefore):
            consequence = self._clause(frame.clause, front=self.tables["patterns"]["so"])
            state = self.tables["states"][frame.state]
            return self._finish(self._pattern("therefore", state=state, consequence=consequence))
        if isinstance(frame, Says):
            return self._capitalized(self._says(frame))
        if isinstance(frame, Where):
            return self._capitalized(self._where(frame))
        return self._finish(self.tables[frame.table][frame.key])

    def _statement(self, frame: Statement) -> str:
        clause = frame.clause
        if frame.front == "link":
            return self._clause(clause, front=self.tables["links"][frame.link])
        if frame.front == "time":
            return self._clause(
                clause, front=self._pattern("front_time", time=self.tables["times"][clause.time])
            )
        return self._clause(clause)

    def _clause(self, clause: Clause, front: str = "") -> str:
        """The clause without capital and full stop; behind a `front` the verb may precede the subject."""
        predicate = self._by_gender(self._action(clause.action), clause.who.person)
        verb, _, rest = predicate.partition(" ")
        return self._pattern(
            "fronted" if front else "clause",
            front=front,
            subject=self._subject(clause.who),
            predicate=predicate,
            verb=verb,
            rest=rest,
            companion=self.tables["companions"][clause.companion] if clause.companion else "",
            place=self.tables["places"][clause.place] if clause.place else "",
            time=self.tables["times"][clause.time] if clause.time else "",
        )

    def _says(self, frame: Says) -> str:
        """The quoted sentence, with its full stop behind the closing mark where the language wants that."""
        quote = self.tables["quotes"][frame.quote]
        words = quote.removesuffix(".")
        stop = quote[len(words) :]
        return self._pattern("says", subject=self._subject(frame.who), quote=quote, words=words, stop=stop)

    def _where(self, frame: Where) -> str:
        return self._pattern(
            "where",
            subject=self._subject(frame.who),
            pronoun=self._capitalized(self._pronoun(frame.who.person)),
            place=self.tables["places"][frame.place],
        )

    def _action(self, action: Action) -> str:
        phrase = self.tables[action.verbs][action.verb]
        if not action.objects:
            return phrase
        chosen = [self.tables[action.objects][key] for key in action.chosen]
        objects = chosen[0]
        if len(chosen) == 2:
            objects = self._pattern("two_objects", first=chosen[0], second=chosen[1])
        return phrase.format(object=objects, number=action.number)

    def _subject(self, who: Mention) -> str:
        if who.form == "pronoun":
            return self._pronoun(who.person)
        name = self.tables[who.person.table][who.person.name]
        if who.form == "name":
            return name
        role = self._by_gender(self.tables["roles"][who.person.role], who.person)
        return self._pattern("with_role", role=role, name=name)

    def _pronoun(self, person: Person) -> str:
        return self._by_gender(self.tables["patterns"]["pronoun"], person)

    def _pattern(self, key: str, /, **slots: str) -> str:
        """The pattern of that key, filled; the spaces around empty slots go."""
        return _SPACES.sub(" ", self.tables["patterns"][key].format(**slots)).strip()

    def _by_gender(self, phrase: str, person: Person) -> str:
        return _BY_GENDER.sub(r"\2" if person.table == "women" else r"\1", phrase)

    def _capitalized(self, text: str) -> str:
        """With the first letter, behind an opening mark such as ¿, in upper case."""
        first = next(place for place, letter in enumerate(text) if letter.isalpha())
        capital = "İ" if self.code == "tr" and text[first] == "i" else text[first].upper()
        return text[:first] + capital + text[first + 1 :]

    def _finish(self, text: str) -> str:
        return self._capitalized(text) + self.tables["patterns"]["end"]
