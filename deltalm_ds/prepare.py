"""Raw text to a prepared folder: `python -m deltalm_ds.prepare INPUT... --output DIR`.

Four passes, each over all text: a survey that finds every mistake before the long work begins, the sample
that trains the tokenizer, encoding, and the shuffled writing. Everything is written into a folder aside and
renamed to DIR at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from deltalm_ds.commands import forget_reader, parse, run
from deltalm_ds.data.builder import ValidationSplit, build_sources
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.manifest import MANIFEST_NAME, Manifest, TokenizerEntry
from deltalm_ds.data.report import describe_blank_pairs, describe_inputs, describe_rate, describe_result
from deltalm_ds.errors import UserError
from deltalm_ds.files import folder_aside, sha256_of, write_bytes_atomically
from deltalm_ds.processes import Workers
from deltalm_ds.text.inputs import Input, TextOptions, understand
from deltalm_ds.text.readers import read_blocks
from deltalm_ds.text.survey import Survey, sample_lines, sampling_rates, survey_inputs
from deltalm_ds.text.tokenizer import Tokenizer, train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

TOKENIZER_NAME = "tokenizer.model"
_RECIPE_VERSION = 1
_TRAINING_SETTINGS = ("vocabulary_size", "character_coverage", "tokenizer_sample_mb", "language_exponent")
_TEXT_SETTINGS = ("documents", "text_field", "language_field", "num_sentinels", "seed")


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(kw_only=True)
class PrepareSettings:
    """Turn text files into data for pre-training: tokenized, shuffled, indexed, with a tokenizer of its own.

    fr.txt or fr.jsonl is text in French; train.en and train.fr in one folder are sentence pairs, line by
    line; .gz, .xz or .zst may follow. Folders and patterns stand for the files in them. Files named valid or
    dev are for validation only.
    """

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Files, folders, or patterns in quotes."""
    output: Path
    """The folder to make."""
    workers: int = field(default_factory=_available_cores)
    """Processes that read and encode; the result does not depend on it."""
    documents: Literal["blocks", "lines"] = "blocks"
    """What a document is in .txt files: a block between blank lines, or a line."""
    text_field: str = "text"
    """Field of a .jsonl line with the text."""
    language_field: str | None = None
    """Field of a .jsonl line with its language; without it, the file's name says it."""
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

    def __post_init__(self) -> None:
        if not self.inputs:
            raise UserError("no input: give text files or folders, for example fr.txt, and --output DIR")
        for name in ("workers", "num_sentinels"):
            if getattr(self, name) < 1:
                raise UserError(f"{_option(name)} must be at least 1, not {getattr(self, name)}")
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


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def prepare(settings: PrepareSettings, say: Callable[[str], object] = print) -> Manifest:
    """Make the prepared folder `settings.output` and return its manifest, telling `say` what happens.

    A folder that the same text and settings have made already is left as it is. UserError for input that
    cannot be used, for options that do not fit it, and for an output folder with other contents.
    """
    options = TextOptions(
        documents=settings.documents, text_field=settings.text_field, language_field=settings.language_field
    )
    inputs, left_out = understand(settings.inputs, options)
    say(describe_inputs(inputs, left_out))
    _check_output(settings.output)
    if settings.tokenizer is not None:
        Tokenizer(settings.tokenizer)
    with Workers(settings.workers) as workers:
        with _progress("reading", inputs) as progress:
            survey = survey_inputs(inputs, workers, progress)
        for blank in describe_blank_pairs(survey):
            say(blank)
        recipe = _recipe(settings, inputs, survey)
        if existing := _existing(settings, recipe):
            say(f"{settings.output} was made of this text with these settings already: nothing to do")
            return existing
        with folder_aside(settings.output) as folder:
            tokenizer_path = folder / TOKENIZER_NAME
            write_bytes_atomically(tokenizer_path, _tokenizer(settings, inputs, survey, workers, say))
            vocabulary = Vocabulary(Tokenizer(tokenizer_path).vocabulary.num_pieces, settings.num_sentinels)
            validation = ValidationSplit(
                share=settings.validation_share, max_documents=settings.max_validation_documents
            )
            started = time.monotonic()
            with _progress("encoding", inputs) as progress:
                sources = build_sources(
                    read_blocks(inputs),
                    folder,
                    tokenizer_path,
                    vocabulary,
                    settings.seed,
                    validation,
                    workers,
                    progress,
                )
            seconds = time.monotonic() - started
            manifest = Manifest(
                tokenizer=TokenizerEntry.of(TOKENIZER_NAME, sha256_of(tokenizer_path), vocabulary),
                dtype=vocabulary.token_dtype.name,
                seed=settings.seed,
                recipe=recipe,
                sources=tuple(entry for source in sources for entry in source.entries),
            )
            manifest.write(folder)
    say(describe_result(sources))
    say(describe_rate(sources, seconds))
    say(f"{settings.output} is ready; look into it with: python -m deltalm_ds.corpus {settings.output}")
    return manifest


@contextlib.contextmanager
def _progress(what: str, inputs: Sequence[Input]) -> Iterator[Callable[[int], object]]:
    """A bar over the bytes of all inputs, on a terminal; elsewhere none."""
    total = sum(path.stat().st_size for entry in inputs for path in entry.paths)
    with tqdm(total=total, desc=what, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        yield bar.update


def _tokenizer(
    settings: PrepareSettings,
    inputs: Sequence[Input],
    survey: Survey,
    workers: Workers,
    say: Callable[[str], object],
) -> bytes:
    """The model file: the given one, or one trained on a sample of the text."""
    if settings.tokenizer is not None:
        say(f"tokenizer: {settings.tokenizer}")
        return settings.tokenizer.read_bytes()
    if not survey.language_bytes:
        raise UserError("all inputs are for validation (their names say valid or dev): add text to train on")
    started = time.monotonic()
    max_bytes = int(settings.tokenizer_sample_mb * 1e6)
    rates = sampling_rates(survey.language_bytes, settings.language_exponent, max_bytes)
    sample_mb = min(sum(survey.language_bytes.values()), max_bytes) / 1e6
    say(
        f"tokenizer: training {settings.vocabulary_size:,} pieces on {sample_mb:.1f} MB of text in "
        f"{len(rates)} languages"
    )
    with _progress("tokenizer sample", inputs) as progress:
        lines = sample_lines(inputs, rates, settings.seed, workers, progress)
        model = train_tokenizer(lines, settings.vocabulary_size, settings.character_coverage)
    say(f"tokenizer: trained in {time.monotonic() - started:.0f} s")
    return model


def _recipe(settings: PrepareSettings, inputs: Sequence[Input], survey: Survey) -> str:
    """A hash of everything that the prepared folder depends on: two equal ones mean equal folders."""
    if settings.tokenizer is not None:
        tokenizer: dict[str, object] = {"sha256": sha256_of(settings.tokenizer)}
    else:
        tokenizer = {name: getattr(settings, name) for name in _TRAINING_SETTINGS}
    content = {
        "version": _RECIPE_VERSION,
        "text": survey.digest,
        "inputs": [(entry.name, entry.ordinal, entry.held_out, len(entry.paths)) for entry in inputs],
        "tokenizer": tokenizer,
        "validation": (settings.validation_share, settings.max_validation_documents),
        **{name: getattr(settings, name) for name in _TEXT_SETTINGS},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_output(output: Path) -> None:
    """UserError where `output` holds something that is no prepared folder: that is never touched."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: name a folder")
    if output.is_mount():
        raise UserError(
            f"--output {output} is a mount point, which no finished folder can replace: name one in it"
        )
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST_NAME).is_file():
        raise UserError(f"--output {output} holds other files: name a new or an empty folder")


def _existing(settings: PrepareSettings, recipe: str) -> Manifest | None:
    """The manifest of `settings.output` if it is whole and of this recipe; None if it may be written."""
    if settings.overwrite or not (settings.output / MANIFEST_NAME).is_file():
        return None
    try:
        manifest = Corpus.open(settings.output, verify=True).manifest
    except UserError as error:
        raise UserError(f"{error} (--overwrite replaces it)") from None
    if manifest.recipe == recipe:
        return manifest
    raise UserError(
        f"{settings.output} was made of other text or with other settings: name another folder or replace it "
        "with --overwrite"
    )


def main() -> None:
    """The command."""
    settings = parse(PrepareSettings, "prepare")
    try:
        prepare(settings, partial(print, flush=True))
    except BrokenPipeError as error:  # of what is said, and not of what is written
        if (settings.output / MANIFEST_NAME).is_file():
            raise
        forget_reader()
        raise UserError(
            "the reader of this command's output left before the folder was finished; nothing was written"
        ) from error
    except OSError as error:  # no space, no permission: the user's to mend, and nothing half written is left
        raise UserError(
            f"{error.filename or settings.output}: {error.strerror or error}; nothing was written"
        ) from error


if __name__ == "__main__":
    run("prepare", main)
