"""What a model folder says of itself beside its sizes: tokenizer, languages, task, how it was trained.

In config.json, next to "model": "tokenizer", "languages", "task" and "training"; the SentencePiece file lies
beside it. A folder without them, saved by `DeltaLM.save_pretrained`, has weights alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltalm_ds.errors import UserError
from deltalm_ds.files import sha256_of
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights.safe import read_json

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "sentencepiece.bpe.model"

_VOCABULARY_FIELDS = ("num_pieces", "num_sentinels", "first_sentinel_id", "num_tags")


@dataclass(frozen=True, kw_only=True)
class TaskDescription:
    """What a model was tuned for: all that generation needs beside weights and tokenizer."""

    name: str
    """A task of `deltalm_ds.downstream.registry`."""
    directions: tuple[tuple[str, str], ...]
    """Source and target languages that it was tuned on."""
    tags: Mapping[str, int] = field(default_factory=dict)
    """Target language → id of the tag that stands behind the source's `<s>`; empty where there are none."""
    max_source_length: int
    """Most tokens of a source."""
    max_target_length: int
    """Most tokens of a target."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of generation, by the names of `deltalm_ds.decoding.settings.SearchSettings`."""
    metric: str
    """What it was chosen by."""

    @property
    def target_languages(self) -> tuple[str, ...]:
        """Those it was tuned to write, each once."""
        return tuple(dict.fromkeys(target for _, target in self.directions))


@dataclass(frozen=True, kw_only=True)
class Description:
    """What stands in a model folder beside sizes and weights."""

    tokenizer: Path
    """The SentencePiece file."""
    vocabulary: Vocabulary
    """What its ids mean in this model."""
    languages: tuple[str, ...] = ()
    """Those that it was trained on, as far as known."""
    task: TaskDescription | None = None
    """None for a model that is only pre-trained."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it came to be, for reading: settings, data, versions, scores. Plain JSON."""

    def to_json(self) -> dict[str, Any]:
        """Its part of config.json."""
        vocabulary = {name: getattr(self.vocabulary, name) for name in _VOCABULARY_FIELDS}
        return {
            "tokenizer": {"file": TOKENIZER_FILE, "sha256": sha256_of(self.tokenizer), **vocabulary},
            "languages": list(self.languages),
            "task": None if self.task is None else dataclasses.asdict(self.task),
            "training": dict(self.training),
        }

    def open_tokenizer(self) -> Tokenizer:
        """The tokenizer, ready to use."""
        return Tokenizer(self.tokenizer, self.vocabulary)


def read_description(folder: str | Path) -> Description:
    """What the model folder says of itself.

    UserError, naming the file, where it has no tokenizer, or where its description or tokenizer is damaged.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} is no model folder: it has no {CONFIG_FILE}")
    content = read_json(path)
    if not isinstance(content.get("tokenizer"), dict):
        raise UserError(
            f"{path} names no tokenizer, so the model cannot read text: make a whole folder of it with "
            "python -m deltalm_ds.convert --tokenizer FILE"
        )
    try:
        entry = {"file": str, "sha256": str, **dict.fromkeys(_VOCABULARY_FIELDS, int)}
        tokenizer = _checked("tokenizer", content["tokenizer"], entry)
        vocabulary = Vocabulary(**{name: tokenizer[name] for name in _VOCABULARY_FIELDS})
        if tokenizer["file"] != TOKENIZER_FILE:
            raise ValueError(f"the tokenizer's file is {tokenizer['file']!r}, not {TOKENIZER_FILE}")
        description = Description(
            tokenizer=folder / TOKENIZER_FILE,
            vocabulary=vocabulary,
            languages=_strings("languages", content.get("languages", [])),
            task=_task(content.get("task")),
            training=_checked("training", content.get("training", {})),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is not usable ({error}): take another copy of the model") from None
    _check_tokenizer(description.tokenizer, tokenizer["sha256"])
    return description


def _check_tokenizer(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: take another copy of the model")
    if sha256_of(path) != sha256:
        raise UserError(
            f"{path} is not the tokenizer that the model was trained with (its hash differs from "
            f"{CONFIG_FILE}'s): take another copy of the model"
        )


def _task(content: Any) -> TaskDescription | None:
    if content is None:
        return None
    fields: dict[str, type] = {"name": str, "metric": str, "directions": list, "tags": dict, "search": dict}
    fields |= {"max_source_length": int, "max_target_length": int}
    values = _checked("task", content, fields)
    pairs = [_strings("a direction of the task", direction) for direction in values["directions"]]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("task.directions are not pairs of languages")
    values["directions"] = tuple(pairs)
    if not all(type(tag) is int and tag >= 0 for tag in values["tags"].values()):
        raise ValueError("task.tags is not ids by language")
    return TaskDescription(**values)


def _checked(name: str, content: Any, fields: Mapping[str, type] | None = None) -> dict[str, Any]:
    """A JSON object, with exactly these fields of these types where they are given."""
    if not isinstance(content, dict):
        raise ValueError(f"{name} is no object")
    if fields is None:
        return dict(content)
    if content.keys() != fields.keys():
        raise ValueError(f"{name} lacks or does not know {sorted(content.keys() ^ fields.keys())}")
    for field_name, kind in fields.items():
        value = content[field_name]
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            raise ValueError(f"{name}.{field_name} is {value!r}")
    return dict(content)


def _strings(name: str, content: Any) -> tuple[str, ...]:
    if not isinstance(content, list) or not all(isinstance(item, str) for item in content):
        raise ValueError(f"{name} is no list of words")
    return tuple(content)
