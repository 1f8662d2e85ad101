"""Made-up data of every downstream task, in its public format, learnt by a tiny model in seconds.

Sentences come from small grammars; validation and test sets are copies of training examples, so that a model
that has learnt its training data scores well on them. All is a function of the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

NUM_TRAINING, NUM_HELD_OUT = 64, 8
SPLITS = ("train", "valid", "test")


class Word(NamedTuple):
    en: str
    fr: str
    es: str = ""
    zh: str = ""


_ANIMALS = (
    Word("cat", "le chat"),
    Word("dog", "le chien"),
    Word("horse", "le cheval"),
    Word("wolf", "le loup"),
    Word("bear", "l'ours"),
    Word("duck", "le canard"),
)
_VERBS = (
    Word("sees", "voit"),
    Word("follows", "suit"),
    Word("finds", "trouve"),
    Word("hears", "entend"),
)
_COLOURS = (
    Word("red", "rouge"),
    Word("green", "vert"),
    Word("white", "blanc"),
    Word("black", "noir"),
)
_THINGS = (
    Word("boat", "le bateau"),
    Word("train", "le train"),
    Word("garden", "le jardin"),
    Word("book", "le livre"),
    Word("hat", "le chapeau"),
)
_PEOPLE = (
    Word("Anna", "Anna", "Ana", "安娜"),
    Word("Paul", "Paul", "Pablo", "保罗"),
    Word("Mary", "Marie", "María", "玛丽"),
    Word("Peter", "Pierre", "Pedro", "彼得"),
    Word("Luke", "Luc", "Lucas", "卢克"),
)
_TOWNS = (
    Word("Rome", "Rome", "Roma", "罗马"),
    Word("Paris", "Paris", "París", "巴黎"),
    Word("Vienna", "Vienne", "Viena", "维也纳"),
    Word("Lima", "Lima", "Lima", "利马"),
)
_GOODS = (
    Word("apples", "des pommes", "manzanas", "苹果"),
    Word("bread", "du pain", "pan", "面包"),
    Word("tea", "du thé", "té", "茶"),
    Word("flowers", "des fleurs", "flores", "花"),
)
_DAYS = (
    Word("today", "aujourd'hui", "hoy", "今天"),
    Word("yesterday", "hier", "ayer", "昨天"),
)


def write_task(name: str, folder: Path, seed: int = 0) -> Path:
    """Write the data of a task into `folder`, which is made; 64 training examples, 8 in each other split."""
    folder.mkdir(parents=True)
    WRITERS[name](folder, random.Random(seed))
    return folder


def write_translation(folder: Path, generator: random.Random) -> None:
    """train.en and train.fr, line by line, and the same of the other splits."""
    pairs = []
    for animal, verb, colour, thing in _draws(generator, _ANIMALS, _VERBS, _COLOURS, _THINGS):
        english = f"the {animal.en} {verb.en} the {colour.en} {thing.en} ."
        pairs.append((english, f"{animal.fr} {verb.fr} {thing.fr} {colour.fr} ."))
    for split, part in _splits(pairs):
        for language, side in zip(("en", "fr"), zip(*part, strict=True), strict=True):
            (folder / f"{split}.{language}").write_text(
                "".join(f"{line}\n" for line in side), encoding="utf-8"
            )


def write_question_generation(folder: Path, generator: random.Random) -> None:
    """questions.train.jsonl of id, lang, context, answer and question, in Chinese.

    Without the full-width question mark, which SentencePiece's normalisation makes a narrow one.
    """
    rows = []
    for person, town, goods, day in _draws(generator, _PEOPLE, _TOWNS, _GOODS, _DAYS):
        asked = generator.choice(("who", "where", "what"))
        context = f"{day.zh}{person.zh}在{town.zh}买{goods.zh}。"
        answer = {"who": person.zh, "where": town.zh, "what": goods.zh}[asked]
        question = {
            "who": f"{day.zh}谁在{town.zh}买{goods.zh}呢。",
            "where": f"{day.zh}{person.zh}在哪里买{goods.zh}呢。",
            "what": f"{day.zh}{person.zh}在{town.zh}买什么呢。",
        }[asked]
        rows.append({"lang": "zh", "context": context, "answer": answer, "question": question})
    _write_rows(folder, "questions", rows)


def write_summarization(folder: Path, generator: random.Random) -> None:
    """headlines.fr.train.jsonl of id, source and target: a sentence and its headline, in French."""
    _write_rows(folder, "headlines.fr", _headlines(generator, "fr"))


def write_cross_lingual_summarization(folder: Path, generator: random.Random) -> None:
    """wiki.train.jsonl of GEM's rows: from Spanish to English."""
    rows = []
    for person, town, goods, day in _draws(generator, _PEOPLE, _TOWNS, _GOODS, _DAYS):
        target = f"{person.en} buys {goods.en}"
        rows.append(
            {
                "source_language": "es",
                "target_language": "en",
                "source": f"{day.es} {person.es} ha comprado {goods.es} en {town.es} .",
                "target": target,
                "references": [target],
            }
        )
    _write_rows(folder, "wiki", rows, id_field="gem_id")


def write_data_to_text(folder: Path, generator: random.Random) -> None:
    """train/facts.xml and the other splits', WebNLG's: a triple or two and two texts, in two categories."""
    entries = []
    for person, town, goods in _draws(generator, _PEOPLE, _TOWNS, _GOODS):
        triples = [f"{person.en} | birthPlace | {town.en}", f"{person.en} | seller_Of | {goods.en}"]
        texts = [
            f"{person.en} , who sells {goods.en} , was born in {town.en} .",
            f"{person.en} was born in {town.en} and sells {goods.en} .",
        ]
        entries.append(("Person", triples, texts))
    for person, colour, thing in _draws(generator, _PEOPLE, _COLOURS, _THINGS):
        triples = [f"{thing.en}_of_{person.en} | colour | {colour.en}"]
        texts = [
            f"the {thing.en} of {person.en} is {colour.en} .",
            f"{person.en} has a {colour.en} {thing.en} .",
        ]
        entries.append(("Property", triples, texts))
    generator.shuffle(entries)
    for split, part in _splits(entries):
        path = folder / split / "facts.xml"
        path.parent.mkdir()
        path.write_text(webnlg_xml(part), encoding="utf-8")


def webnlg_xml(entries: Iterable[tuple[str, Sequence[str], Sequence[str]]], language: str = "") -> str:
    """WebNLG's XML of categories, triples and texts."""
    lines = ['<?xml version="1.0" ?>', "<benchmark><entries>"]
    for number, (category, triples, texts) in enumerate(entries, 1):
        lines.append(f'<entry category={quoteattr(category)} eid="Id{number}" size="{len(triples)}">')
        lines += ["<modifiedtripleset>", *(f"<mtriple>{escape(triple)}</mtriple>" for triple in triples)]
        lines.append("</modifiedtripleset>")
        lines += [f'<lex comment="good" lang="{language}">{escape(text)}</lex>' for text in texts]
        lines.append("</entry>")
    return "\n".join([*lines, "</entries></benchmark>", ""])


def write_zero_shot_summarization(folder: Path, generator: random.Random) -> None:
    """headlines.en.train.jsonl and headlines.en.valid.jsonl, and headlines.fr.test.jsonl in French."""
    english, french = _headlines(generator, "en"), _headlines(generator, "fr")
    _write_rows(folder, "headlines.en", english, splits=("train", "valid"))
    _write_rows(folder, "headlines.fr", french, splits=("test",))


WRITERS: dict[str, Callable[[Path, random.Random], None]] = {
    "translation": write_translation,
    "question-generation": write_question_generation,
    "summarization": write_summarization,
    "cross-lingual-summarization": write_cross_lingual_summarization,
    "data-to-text": write_data_to_text,
    "zero-shot-summarization": write_zero_shot_summarization,
}
"""By task."""


def _headlines(generator: random.Random, language: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for person, town, goods, day in _draws(generator, _PEOPLE, _TOWNS, _GOODS, _DAYS):
        if language == "fr":
            source = f"{day.fr} {person.fr} vend {goods.fr} à {town.fr} ."
            target = f"{town.fr} : {person.fr} vend {goods.fr}"
        else:
            source = f"{day.en} {person.en} is selling {goods.en} in {town.en} ."
            target = f"{town.en} : {person.en} sells {goods.en}"
        rows.append({"source": source, "target": target})
    return rows


def _draws(generator: random.Random, *choices: Sequence) -> list[tuple]:
    """NUM_TRAINING different combinations, one of each of the choices."""
    drawn: dict[tuple, None] = {}
    while len(drawn) < NUM_TRAINING:
        drawn[tuple(generator.choice(choice) for choice in choices)] = None
    return list(drawn)


def _splits(examples: Sequence, splits: Iterable[str] = SPLITS) -> list[tuple[str, Sequence]]:
    parts = {
        "train": examples[:NUM_TRAINING],
        "valid": examples[:NUM_HELD_OUT],
        "test": examples[NUM_HELD_OUT : 2 * NUM_HELD_OUT],
    }
    return [(split, parts[split]) for split in splits]


def _write_rows(
    folder: Path,
    stem: str,
    rows: Sequence[dict[str, object]],
    splits: Iterable[str] = SPLITS,
    id_field: str = "id",
) -> None:
    numbered = [{id_field: f"{stem}-{number}", **row} for number, row in enumerate(rows)]
    for split, part in _splits(numbered, splits):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{stem}.{split}.jsonl").write_text(lines, encoding="utf-8")
