"""The options of `prepare`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from deltalm_ds.errors import UserError
from deltalm_ds.text.cleaning import CleaningSettings


@dataclass(kw_only=True)
class PrepareSettings:
    """Turn text files into data for pre-training: tokenized, shuffled, indexed, with a tokenizer of its own.

    fr.txt or fr.jsonl is text in French; train.en and train.fr in one folder are sentence pairs, line by
    line, as are en-fr.tsv, en-fr.jsonl and en-fr.tmx; .gz, .xz or .zst may follow, and a .zip stands for its
    members. Folders and patterns stand for the files in them. Files named valid or dev are for validation
    only. A .yaml file is a recipe, which names all of that itself (docs/data.md). Killed at any moment, the
    same command goes on where it was. Under mpirun or srun --mpi it works on many nodes.
    """

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Files, folders, patterns in quotes, or recipes."""
    output: Path
    """The folder to make; while it is made, a hidden one beside it takes some two times its size."""
    workers: int | None = None
    """Processes that read and encode, for every MPI rank. Default: the node's cores, shared by its ranks. The
    result depends neither on it nor on the ranks."""
    recipe_folder: Path | None = None
    """The folder that a recipe's files are in. Default: the recipe's own."""
    documents: Literal["blocks", "lines"] = "blocks"
    """What a document is in .txt files: a block between blank lines, or a line."""
    text_field: str = "text"
    """Field of a .jsonl line with the text."""
    language_field: str | None = None
    """Field of a .jsonl line with its language; without it, the file's name says it."""
    pair_fields: tuple[str, str] | None = None
    """Fields of a line of en-fr.jsonl with the two sides. Default: en and fr, also within "translation"."""
    columns: tuple[int, int] = (1, 2)
    """Columns of en-fr.tsv with the two sides, from 1."""
    tokenizer: Path | None = None
    """A SentencePiece .model to use, XLM-R's for example; without it, one is trained on the text."""
    vocabulary_size: int = 32_000
    """Pieces of the tokenizer to train."""
    character_coverage: float = 0.9995
    """Share of the text's characters that the trained tokenizer must know."""
    tokenizer_sample_mb: float = 100
    """Text to train the tokenizer on, at most, in MB; training takes some 20 to 50 times as much memory."""
    language_exponent: float = 0.3
    """The tokenizer's text holds each language by the share bytes^exponent: 1 as it is, 0 all equal."""
    num_sentinels: int = 100
    """Sentinels after the vocabulary: the most masked spans of a sample."""
    validation_share: float = 0.005
    """Share of a source's documents held out for validation, where no file is named valid or dev."""
    max_validation_documents: int = 2_000
    """At most so many documents of a source are held out."""
    seed: int = 0
    """Of the shuffle, the validation split and the tokenizer's sample."""
    overwrite: bool = False
    """Replace a prepared folder of other text or settings."""
    cleaning: CleaningSettings = field(default_factory=CleaningSettings)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UserError("no input: give text files or folders, for example fr.txt, and --output DIR")
        for name in ("workers", "num_sentinels"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{_option(name)} must be at least 1, not {value}")
        for name in ("validation_share", "language_exponent", "character_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{_option(name)} must be within 0..1, not {getattr(self, name)}")
        for name in ("max_validation_documents", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"{_option(name)} must not be negative, not {getattr(self, name)}")
        if self.vocabulary_size < 4:
            raise UserError(f"--vocabulary-size must be at least 4, not {self.vocabulary_size}")
        if self.tokenizer_sample_mb <= 0:
            raise UserError(f"--tokenizer-sample-mb must be above 0, not {self.tokenizer_sample_mb}")
        if min(self.columns) < 1:
            raise UserError(f"--columns are counted from 1, not {self.columns[0]} {self.columns[1]}")

    def num_workers(self, ranks_on_node: int) -> int:
        """Worker processes of each of a node's ranks."""
        return self.workers or max(_available_cores() // ranks_on_node, 1)


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
