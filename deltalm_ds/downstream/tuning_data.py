"""A task's data as a run keeps them: tokens on disk by direction, and the validation examples as text.

A folder as `deltalm_ds.data.manifest` describes it, one source of pairs a direction, with two files more:
tags.json (language → id of its tag) and validation.jsonl. It appears whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from deltalm_ds.data.indexed_files import IndexedWriter
from deltalm_ds.data.manifest import Manifest, SourceEntry, Split, TokenizerEntry
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.errors import UserError
from deltalm_ds.files import put_folder, sha256_of, write_bytes_atomically, write_text_atomically
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

TOKENIZER_FILE = "tokenizer.model"
TAGS_FILE = "tags.json"
VALIDATION_FILE = "validation.jsonl"

ReadExamples = Callable[[], Iterator[DownstreamExample]]
Say = Callable[[str], object]

_EXAMPLES_AT_ONCE = 2_000
_SECONDS_BETWEEN_LINES = 30.0


def target_languages(examples: Iterable[DownstreamExample]) -> list[str]:
    """The languages that are written in some examples, sorted."""
    return sorted({example.target_language for example in examples})


def write_tuning_data(
    folder: Path,
    train: ReadExamples,
    validation: Sequence[DownstreamExample],
    *,
    tokenizer: Path,
    vocabulary: Vocabulary,
    tags: Mapping[str, int],
    max_source_length: int,
    max_target_length: int,
    say: Say,
) -> None:
    """Write the data of a run into `folder`, which must not be there.

    Every target of a training example makes a pair; of a validation example the first one does.
    `vocabulary` is that of the model to be tuned, with the `tags` that stand in sources. What is over the
    lengths is cut, and counted in a line to `say`.
    """
    aside = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    encoder = TextEncoder(
        Tokenizer(tokenizer, vocabulary),
        tags,
        max_source_length=max_source_length,
        max_target_length=max_target_length,
    )
    entries = []
    splits: tuple[tuple[Split, Iterable[DownstreamExample]], ...] = (
        ("train", train()),
        ("valid", validation),
    )
    for split, examples in splits:
        writer = _SplitWriter(aside, split, encoder, vocabulary, say)
        entries += writer.write(examples)
    write_bytes_atomically(aside / TOKENIZER_FILE, tokenizer.read_bytes())
    write_text_atomically(aside / TAGS_FILE, json.dumps(dict(tags), indent=1) + "\n")
    lines = (json.dumps(dataclasses.asdict(example), ensure_ascii=False) for example in validation)
    write_text_atomically(aside / VALIDATION_FILE, "".join(f"{line}\n" for line in lines))
    Manifest(
        tokenizer=TokenizerEntry.of(TOKENIZER_FILE, sha256_of(tokenizer), vocabulary),
        dtype=vocabulary.token_dtype.name,
        seed=0,
        recipe="fine-tuning",
        sources=tuple(entries),
    ).write(aside)
    put_folder(aside, folder)


def read_validation(folder: Path) -> list[DownstreamExample]:
    """The validation examples of a run's data; UserError for a damaged file."""
    path = folder / VALIDATION_FILE
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [DownstreamExample(**{**row, "targets": tuple(row["targets"])}) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}): start the run again in another --output") from None


def read_tags(folder: Path) -> dict[str, int]:
    """The language tags of a run's data; UserError for a damaged file."""
    path = folder / TAGS_FILE
    try:
        tags = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(tags, dict) or not all(type(tag) is int for tag in tags.values()):
            raise ValueError("no ids by language")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): start the run again in another --output") from None
    return tags


class _SplitWriter:
    """Writes the sources of one split."""

    def __init__(
        self, folder: Path, split: Split, encoder: TextEncoder, vocabulary: Vocabulary, say: Say
    ) -> None:
        self._folder, self._split, self._encoder, self._say = folder / split, split, encoder, say
        self._dtype = vocabulary.token_dtype
        self._num_cut = Counter[str]()
        self._num_examples = 0

    def write(self, examples: Iterable[DownstreamExample]) -> list[SourceEntry]:
        """The entries of the datasets written, by name."""
        self._folder.mkdir()
        writers: dict[tuple[str, str], IndexedWriter] = {}
        said = time.monotonic()
        with ExitStack() as open_files:
            remaining = iter(examples)
            while batch := list(islice(remaining, _EXAMPLES_AT_ONCE)):
                for example in batch:
                    direction = example.source_language, example.target_language
                    if direction not in writers:
                        prefix = self._folder / "-".join(direction)
                        writers[direction] = open_files.enter_context(IndexedWriter(prefix, self._dtype))
                self._add(batch, writers)
                if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    self._say(f"{self._split}: {self._num_examples:,} examples as tokens so far")
        for side, count in self._num_cut.items():
            self._say(f"{self._split}: {count:,} {side}s are longer than --max-{side}-length, and cut")
        return [self._entry(direction, writer) for direction, writer in sorted(writers.items())]

    def _add(
        self, examples: Sequence[DownstreamExample], writers: Mapping[tuple[str, str], IndexedWriter]
    ) -> None:
        sources, cut_sources = self._encoder.sources(
            [example.source for example in examples], [example.target_language for example in examples]
        )
        kept = [example.targets if self._split == "train" else example.targets[:1] for example in examples]
        targets, cut_targets = self._encoder.targets([text for texts in kept for text in texts])
        remaining = iter(targets)
        for example, source, texts in zip(examples, sources, kept, strict=True):
            writer = writers[example.source_language, example.target_language]
            for _ in texts:
                writer.add_document([source, next(remaining)])
        for side, cut in (("source", cut_sources), ("target", cut_targets)):
            if cut.any():
                self._num_cut[side] += int(cut.sum())
        self._num_examples += len(examples)

    def _entry(self, direction: tuple[str, str], writer: IndexedWriter) -> SourceEntry:
        written = writer.written
        assert written is not None
        name = "-".join(direction)
        return SourceEntry(
            name=name,
            kind="pairs",
            languages=direction,
            split=self._split,
            prefix=f"{self._split}/{name}",
            **vars(written),
        )
