"""What the sample's sentences say, in no language: who does what, with whom, where and when.

A frame names its words by their table and key in the phrase files; `languages.py` puts it into words. So one
document of frames gives the same story in every language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from deltalm_ds.demo.draws import Draws

Keys: TypeAlias = Mapping[str, Sequence[str]]
"""The keys of every phrase table; they are the same in all languages."""


@dataclass(frozen=True)
class Person:
    """Somebody of a story: a key of the table `women` or `men`, and one of `roles`."""

    table: Literal["women", "men"]
    name: str
    role: str


@dataclass(frozen=True)
class Mention:
    """How a sentence refers to a person: "the baker Anna", "Anna" or "she"."""

    person: Person
    form: Literal["role", "name", "pronoun"]


@dataclass(frozen=True)
class Action:
    """A verb phrase: a key of the table `verbs`, and of `objects` for what it is done to, if anything."""

    verbs: str
    verb: str
    objects: str = ""
    chosen: tuple[str, ...] = ()
    number: int = 0


@dataclass(frozen=True)
class Clause:
    """Somebody does something. Empty strings: no such detail."""

    who: Mention
    action: Action
    companion: str = ""
    place: str = ""
    time: str = ""


@dataclass(frozen=True)
class Statement:
    """A clause as a sentence, after a linking word or its time if `front` says so."""

    clause: Clause
    front: Literal["", "link", "time"] = ""
    link: str = ""


@dataclass(frozen=True)
class Joined:
    """Two clauses, joined by "and" or "but"."""

    joint: Literal["and", "but"]
    first: Clause
    second: Clause


@dataclass(frozen=True)
class Because:
    """A clause and the state of the world that explains it."""

    clause: Clause
    state: str


@dataclass(frozen=True)
class Therefore:
    """A state of the world and what somebody does about it."""

    state: str
    clause: Clause


@dataclass(frozen=True)
class Says:
    """Somebody's words, a key of the table `quotes`."""

    who: Mention
    quote: str


@dataclass(frozen=True)
class Where:
    """The question where somebody is, and the answer."""

    who: Mention
    place: str


@dataclass(frozen=True)
class Remark:
    """A sentence about nobody: a key of the table `states` or `closings`."""

    table: Literal["states", "closings"]
    key: str


Frame: TypeAlias = Statement | Joined | Because | Therefore | Says | Where | Remark

_OBJECTS_OF_VERBS = {
    "food_verbs": "foods",
    "thing_verbs": "things",
    "text_verbs": "texts",
    "animal_verbs": "animals",
    "people_verbs": "people",
}
_ACTION_WEIGHTS = {
    "food_verbs": 30,
    "thing_verbs": 20,
    "text_verbs": 14,
    "animal_verbs": 10,
    "people_verbs": 8,
    "activities": 18,
}
_SENTENCE_WEIGHTS = {
    "statement": 45,
    "joined": 14,
    "because": 12,
    "therefore": 9,
    "says": 9,
    "where": 6,
    "remark": 5,
}
_OBJECTS_PER_STORY = {"foods": 3, "things": 2, "texts": 1, "animals": 1, "people": 1}


class _Story:
    """The few persons, places and objects of one document: what comes back is predictable from context."""

    def __init__(self, draws: Draws, keys: Keys) -> None:
        self.draws = draws
        self.keys = keys
        people: list[tuple[Literal["women", "men"], str]] = [("women", name) for name in keys["women"]]
        people += [("men", name) for name in keys["men"]]
        roles = draws.sample(keys["roles"], 2)
        self.hero, self.friend = (
            Person(table, name, role)
            for (table, name), role in zip(draws.sample(people, 2), roles, strict=True)
        )
        self.objects = {
            table: draws.sample(keys[table], count) for table, count in _OBJECTS_PER_STORY.items()
        }
        self.places = draws.sample(keys["places"], 2)
        self.states = draws.sample(keys["states"], 2)
        self.remarks = list(self.states)
        self.introduced: set[Person] = set()
        self.last_subject: Person | None = None

    def mention(self, person: Person, pronoun: bool = True) -> Mention:
        """The role at first, then the name, or the pronoun when the sentence before was about them."""
        form: Literal["role", "name", "pronoun"] = "name"
        if person not in self.introduced:
            form = "role"
        elif pronoun and self.last_subject == person and self.draws.chance(65):
            form = "pronoun"
        self.introduced.add(person)
        self.last_subject = person
        return Mention(person, form)

    def action(self) -> Action:
        draws = self.draws
        verbs = draws.weighted(_ACTION_WEIGHTS)
        verb = draws.choice(self.keys[verbs])
        if verbs == "activities":
            return Action(verbs, verb)
        objects = _OBJECTS_OF_VERBS[verbs]
        at_hand = self.objects[objects]
        count = 2 if objects in ("foods", "things") and draws.chance(25) else 1
        return Action(verbs, verb, objects, tuple(draws.sample(at_hand, count)), 2 + draws.below(40))

    def feeling(self) -> Action:
        return Action("feelings", self.draws.choice(self.keys["feelings"]))

    def clause(self, who: Mention, action: Action, details: bool = True) -> Clause:
        """The clause with, if `details`, at times a companion and a place; never a time."""
        draws = self.draws
        if not details or not action.objects:
            return Clause(who, action)
        other = self.friend if who.person == self.hero else self.hero
        companion = other.name if other in self.introduced and draws.chance(12) else ""
        return Clause(who, action, companion, draws.choice(self.places) if draws.chance(50) else "")

    def sentence(self) -> Frame:
        draws = self.draws
        kind = draws.weighted(_SENTENCE_WEIGHTS)
        person = self.hero if draws.chance(65) else self.friend
        if kind == "remark" and self.remarks:
            return Remark("states", self.remarks.pop())
        if kind == "where":
            who = self.mention(person, pronoun=False)
            return Where(who, draws.choice(self.places))
        who = self.mention(person)
        if kind == "says":
            return Says(who, draws.choice(self.keys["quotes"]))
        if kind in ("statement", "remark"):
            return self._statement(who)
        if kind == "therefore":
            return Therefore(draws.choice(self.states), self.clause(who, self.action()))
        action = self.feeling() if draws.chance(30) else self.action()
        clause = self.clause(who, action, details=False)
        if kind == "because":
            return Because(clause, draws.choice(self.states))
        other = self.friend if person == self.hero else self.hero
        second = self.clause(self.mention(other), self.action(), details=False)
        self.last_subject = None  # two persons: a pronoun could mean either
        return Joined("and" if draws.chance(50) else "but", clause, second)

    def _statement(self, who: Mention) -> Statement:
        draws = self.draws
        clause = self.clause(who, self.action())
        front = draws.weighted({"plain": 40, "link": 25, "time": 20, "time_inside": 15})
        if front == "plain":
            return Statement(clause)
        if front == "link":
            return Statement(clause, "link", draws.choice(self.keys["links"]))
        timed = Clause(
            clause.who, clause.action, clause.companion, clause.place, draws.choice(self.keys["times"])
        )
        return Statement(timed, "time" if front == "time" else "")


def draw_document(draws: Draws, keys: Keys) -> list[Frame]:
    """A story of 4 to 9 sentences about one or two persons."""
    story = _Story(draws, keys)
    frames: list[Frame] = []
    if draws.chance(25):
        frames.append(Remark("states", story.remarks.pop()))
    home = Action("town_verbs", draws.choice(keys["town_verbs"]), "towns", (draws.choice(keys["towns"]),))
    frames.append(Statement(Clause(story.mention(story.hero), home)))
    frames += [story.sentence() for _ in range(3 + draws.below(4))]
    if draws.chance(35):
        frames.append(Remark("closings", draws.choice(keys["closings"])))
    return frames
