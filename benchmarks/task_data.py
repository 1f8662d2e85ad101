"""What `tasks.py` trains on and tests: real text of each task, cut into parts where it has none."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.reading import read_examples
from deltalm_ds.downstream.registry import find_task
from deltalm_ds.files import write_text_atomically

NAMES = (
    "translation",
    "question-generation",
    "headlines",
    "webnlg",
    "cross-lingual-questions",
    "zero-shot-questions",
)
"""All runs."""

# Few tokens a step, for the data are small and two cores slow; the rate suits a model without pre-training.
SMALL = (
    *("--preset", "mini", "--batch-tokens", 4000, "--micro-batch-tokens", 4000, "--schedule", "linear"),
    *("--learning-rate", 1.5e-3, "--patience", 0, "--validation-samples", 100),
    *("--validate-every", 300, "--save-every", 300),
)
_EVERY = 8
"""Of data without parts, each eighth example is for testing."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A test set, line by line."""

    name: str
    sources: Path
    references: tuple[Path, ...]
    target_language: str
    generate_options: tuple[object, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """One run."""

    name: str
    options: tuple[object, ...]
    """Of `finetune`, all but the output and the length."""
    epochs: float
    """Passes over the training data."""
    directions: tuple[Direction, ...]
    metric: str
    shown_part: str
    """Of the metric's numbers the one in the table."""


def task_data(name: str, data: Path, made: Path) -> TaskData:
    """The run of this name on the text in `data`; what has to be made of it goes to `made`."""
    folder = made / name
    if name == "translation":
        paths = (data / "mt" / "en-fr", data / "mt" / "en-de")
        options = ("--source-language", "en", "--vocabulary-size", 8000, "--warmup-steps", 300)
        reading = ReadingOptions(source_language="en")
        return _whole(name, "translation", paths, paths, folder, reading, options, 2, 128, "bleu")
    if name == "headlines":
        paths = (data / "sum-fr",)
        options = ("--source-language", "fr", "--vocabulary-size", 8000, "--warmup-steps", 100)
        reading = ReadingOptions(source_language="fr")
        return _whole(name, "summarization", paths, paths, folder, reading, options, 4, 128, "rouge")
    if name == "webnlg":
        both = _split_entries(data / "webnlg" / "webnlg2023.ru_dev.xml", folder)
        train, valid = (data / "webnlg" / "webnlg2017.train.tar.gz", both), (both,)
        options = ("--vocabulary-size", 8000, "--warmup-steps", 100)
        return _whole(name, "data-to-text", train, valid, folder, ReadingOptions(), options, 2, 192, "bleu")
    questions = data / "qg"
    if name == "question-generation":
        files = [questions / "cmrc2018.zh.train.jsonl", questions / "xquad.zh.train.jsonl"]
        paths = (_split_rows(files, folder / "rows", _own_language),)
        options = ("--vocabulary-size", 8000, "--warmup-steps", 100)
        reading = ReadingOptions()
        metric = "bleu4-characters"
        return _whole(name, "question-generation", paths, paths, folder, reading, options, 4, 256, metric)
    if name == "cross-lingual-questions":
        files = [questions / f"xquad.{language}.train.jsonl" for language in ("de", "hi", "zh")]
        paths = (_split_rows(files, folder / "rows", _to_english(questions)),)
        options = ("--vocabulary-size", 8000, "--warmup-steps", 100)
        task = "cross-lingual-summarization"
        return _whole(name, task, paths, paths, folder, ReadingOptions(), options, 4, 256, "rouge")
    if name == "zero-shot-questions":
        train = _split_rows([questions / "xquad.en.train.jsonl"], folder / "rows", _own_language)
        tests = [questions / f"xquad.{language}.train.jsonl" for language in ("de", "zh")]
        others = _split_rows(tests, folder / "others", _own_language)
        task = "zero-shot-summarization"
        options = ("--vocabulary-size", 8000, "--warmup-steps", 100, "--freeze")
        found = _whole(
            name, task, (train,), (train, others), folder, ReadingOptions(), options, 4, 256, "rouge"
        )
        return replace(
            found,
            directions=tuple(
                replace(
                    direction,
                    generate_options=(
                        *("--allow-pieces-of", data / "mono" / f"{direction.target_language}.txt"),
                    ),
                )
                for direction in found.directions
            ),
        )
    raise ValueError(name)


def _whole(
    name: str,
    task_name: str,
    train: Sequence[Path],
    valid: Sequence[Path],
    folder: Path,
    reading: ReadingOptions,
    options: Iterable[object],
    epochs: float,
    longest: int,
    metric: str,
) -> TaskData:
    task = find_task(task_name)
    examples = list(read_examples(valid, task, "valid", reading))
    return TaskData(
        name=name,
        options=(
            *("--task", task_name, "--data", *train, "--validation-data", *valid, *SMALL, *options),
            *("--max-source-length", longest, "--max-target-length", longest),
        ),
        epochs=epochs,
        directions=tuple(_write_directions(examples, folder / "test")),
        metric=metric,
        shown_part="rougeL" if metric == "rouge" else metric,
    )


def _write_directions(examples: Sequence[DownstreamExample], folder: Path) -> Iterable[Direction]:
    folder.mkdir(parents=True, exist_ok=True)
    for direction in dict.fromkeys(example.direction for example in examples):
        chosen = [example for example in examples if example.direction == direction and example.source]
        sources = folder / f"{direction}.source"
        write_text_atomically(sources, "".join(f"{example.source}\n" for example in chosen))
        references = []
        for number in range(max(len(example.targets) for example in chosen)):
            references.append(folder / f"{direction}.reference{number}")
            lines = (example.targets[number : number + 1] or ("",) for example in chosen)
            write_text_atomically(references[-1], "".join(f"{line[0]}\n" for line in lines))
        yield Direction(
            name=direction,
            sources=sources,
            references=tuple(references),
            target_language=chosen[0].target_language,
        )


def _split_rows(files: Sequence[Path], folder: Path, change) -> Path:
    """rows.train.jsonl and rows.valid.jsonl of changed rows."""
    parts: dict[str, list[str]] = {"train": [], "valid": []}
    for file in files:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for number, row in enumerate(rows):
            changed = change(row)
            if changed is not None:
                part = "valid" if number % _EVERY == 0 else "train"
                parts[part].append(json.dumps(changed, ensure_ascii=False))
    folder.mkdir(parents=True, exist_ok=True)
    for part, lines in parts.items():
        write_text_atomically(folder / f"rows.{part}.jsonl", "".join(f"{line}\n" for line in lines))
    return folder


def _own_language(row: dict[str, str]) -> dict[str, str]:
    source = f"{row['answer']} </s> {row['context']}"
    return {**row, "source": source, "target": row["question"]}


def _to_english(questions: Path):
    """Rows whose question is that of the English row of the same name."""
    english = {
        row["id"]: row["question"]
        for row in map(
            json.loads, (questions / "xquad.en.train.jsonl").read_text(encoding="utf-8").splitlines()
        )
    }

    def change(row: dict[str, str]) -> dict[str, str] | None:
        if row["id"] not in english:
            return None
        return {
            "gem_id": row["id"],
            "source_language": row["lang"],
            "target_language": "en",
            "source": f"{row['answer']} </s> {row['context']}",
            "target": english[row["id"]],
            "references": [english[row["id"]]],
        }

    return change


def _split_entries(file: Path, folder: Path) -> Path:
    """WebNLG's train/both.xml and valid/both.xml of one file."""
    entries = list(ET.parse(file).getroot().iter("entry"))  # the user's own copy of public data
    for part, is_of_part in (("train", lambda n: n % _EVERY), ("valid", lambda n: not n % _EVERY)):
        chosen = [entry for number, entry in enumerate(entries) if is_of_part(number)]
        text = "".join(ET.tostring(entry, encoding="unicode") for entry in chosen)
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_text_atomically(
            folder / part / "both.xml", f"<benchmark><entries>{text}</entries></benchmark>\n"
        )
    return folder
