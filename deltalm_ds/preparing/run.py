"""From raw text to a prepared folder, stage by stage, on all ranks.

Everything is written into a work folder beside the output, where each stage finds what is done already; at
the end the finished folder is renamed to the output and the rest removed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.manifest import MANIFEST_NAME, Manifest
from deltalm_ds.errors import UserError
from deltalm_ds.files import put_folder, sha256_of, write_bytes_atomically
from deltalm_ds.preparing import report
from deltalm_ds.preparing.encoding import Encoding, encode_piece
from deltalm_ds.preparing.finishing import Finisher
from deltalm_ds.preparing.settings import PrepareSettings
from deltalm_ds.preparing.sources import collect
from deltalm_ds.preparing.stages import Stage, digest
from deltalm_ds.preparing.tokenizers import TrainingSettings, survey, trained_tokenizer
from deltalm_ds.preparing.work import remove, worked_in
from deltalm_ds.processes import Workers
from deltalm_ds.ranks import Ranks
from deltalm_ds.text.inputs import Input, TextOptions, numbered, understand
from deltalm_ds.text.pieces import Part, parts_of
from deltalm_ds.text.recipe import RECIPE_SUFFIXES, read_recipe
from deltalm_ds.text.stored import StoredText
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

_RECIPE_VERSION = 2
_TRAINING_SETTINGS = ("vocabulary_size", "character_coverage", "tokenizer_sample_mb", "language_exponent")

Say = Callable[[str], object]


@dataclass(frozen=True)
class _Understood:
    """What the command line names."""

    inputs: list[Input]
    left_out: list[StoredText]
    weights: dict[str, float]
    without_files: list[str]
    parts: list[Part]


def prepare(settings: PrepareSettings, say: Say = print) -> Manifest:
    """Make the prepared folder `settings.output` and return its manifest, telling `say` what happens.

    Under MPI all ranks call it. A folder that the same text and settings have made already is left as it is.
    UserError for input that cannot be used, for options that do not fit it, and for an output folder with
    other contents; what was done until then is kept in the work folder, where the next call goes on.
    """
    with Ranks() as ranks, Workers(settings.num_workers(ranks.count_on_node)) as workers:
        tell: Say = say if ranks.is_first else lambda _: None
        understood = ranks.from_first(lambda: _understand(settings))
        tell(report.describe_inputs(understood.inputs, understood.left_out))
        if understood.without_files:
            tell(report.describe_sources_without_files(understood.without_files))
        with worked_in(settings.output, ranks) as work:
            return _Preparation(settings, understood, work, ranks, workers, tell).run()


class _Preparation:
    def __init__(
        self,
        settings: PrepareSettings,
        understood: _Understood,
        work: Path,
        ranks: Ranks,
        workers: Workers,
        tell: Say,
    ) -> None:
        self._settings, self._work = settings, work
        self._inputs, self._parts, self._weights = understood.inputs, understood.parts, understood.weights
        self._ranks, self._workers, self._tell = ranks, workers, tell

    def run(self) -> Manifest:
        """All stages."""
        settings, ranks, workers = self._settings, self._ranks, self._workers
        has_output = ranks.from_first(lambda: (settings.output / MANIFEST_NAME).is_file())
        surveyed = None
        if settings.tokenizer is None or (has_output and not settings.overwrite):
            surveyed = survey(self._work, self._parts, settings.cleaning.damaged, ranks, workers)
            digests = [result["sha256"] for part in self._parts for result in surveyed.results(part)]
            if existing := ranks.from_first(lambda: self._existing(self._recipe(digests))):
                self._tell(f"{settings.output} was made of this text and settings already: nothing to do")
                return existing
        tokenizer = self._tokenizer(surveyed)
        started = time.monotonic()
        vocabulary = Vocabulary(Tokenizer(tokenizer).vocabulary.num_pieces, settings.num_sentinels)
        encoding = Encoding(
            tokenizer=tokenizer, vocabulary=vocabulary, cleaning=settings.cleaning, seed=settings.seed
        )
        depends_on = [sha256_of(tokenizer), asdict(vocabulary), asdict(settings.cleaning), settings.seed]
        encoded = Stage("encoding", self._work / f"encoded-{digest(depends_on)}", self._parts)
        encoded.run(partial(encode_piece, encoding=encoding), ranks, workers)
        collected = collect(self._inputs, encoded)

        finisher = Finisher(settings, self._weights, encoded, collected, encoding, self._work, ranks, workers)
        manifest, sources = finisher.run(self._recipe(collected.digests))
        ranks.from_first(lambda: put_folder(finisher.folder, settings.output))
        self._tell(report.describe_result(sources))
        if left_out := report.describe_left_out(collected.counts, sources):
            self._tell(left_out)
        self._tell(report.describe_rate(collected.num_bytes, time.monotonic() - started))
        self._tell(
            f"{settings.output} is ready; look into it with: python -m deltalm_ds.corpus {settings.output}"
        )
        return manifest

    def _existing(self, recipe: str) -> Manifest | None:
        """The manifest of the output if it is whole and of this recipe; None if it may be written."""
        output = self._settings.output
        if self._settings.overwrite or not (output / MANIFEST_NAME).is_file():
            return None
        try:
            manifest = Corpus.open(output, verify=True).manifest
            if manifest.recipe == recipe:
                return manifest
        except UserError as error:
            reason = f"{error} (--overwrite replaces it)"
        else:
            reason = (
                f"{output} was made of other text or with other settings: name another folder or replace it "
                "with --overwrite"
            )
        remove(self._work)  # nothing to go on with
        raise UserError(reason)

    def _tokenizer(self, surveyed: Stage | None) -> Path:
        """The model in the work folder: a copy of the given one, or one trained on a sample of the text."""
        settings = self._settings
        if settings.tokenizer is not None:
            given = settings.tokenizer
            self._tell(f"tokenizer: {given}")
            path = self._work / f"tokenizer-{sha256_of(given)[:24]}.model"
            self._ranks.from_first(lambda: write_bytes_atomically(path, given.read_bytes()))
            return path
        assert surveyed is not None
        training = TrainingSettings(
            vocabulary_size=settings.vocabulary_size,
            character_coverage=settings.character_coverage,
            sample_bytes=int(settings.tokenizer_sample_mb * 1e6),
            language_exponent=settings.language_exponent,
            seed=settings.seed,
        )
        return trained_tokenizer(
            self._work,
            self._parts,
            surveyed,
            training,
            settings.cleaning.damaged,
            self._ranks,
            self._workers,
            self._tell,
        )

    def _recipe(self, digests: Sequence[str]) -> str:
        """A hash of all that the prepared folder depends on: two equal ones mean equal folders."""
        settings = self._settings
        if settings.tokenizer is not None:
            tokenizer: object = sha256_of(settings.tokenizer)
        else:
            tokenizer = {name: getattr(settings, name) for name in _TRAINING_SETTINGS}
        inputs = [
            (entry.name, entry.ordinal, entry.held_out, entry.format, entry.fields, entry.language_field)
            for entry in self._inputs
        ]
        content = {
            "version": _RECIPE_VERSION,
            "text": hashlib.sha256("".join(digests).encode()).hexdigest(),
            "inputs": inputs,
            "weights": self._weights,
            "tokenizer": tokenizer,
            "num_sentinels": settings.num_sentinels,
            "validation": (settings.validation_share, settings.max_validation_documents),
            "cleaning": asdict(settings.cleaning),
            "seed": settings.seed,
        }
        return digest(content)


def _understand(settings: PrepareSettings) -> _Understood:
    """The inputs, checked as far as that is quick."""
    options = TextOptions(
        documents=settings.documents,
        text_field=settings.text_field,
        language_field=settings.language_field,
        pair_fields=settings.pair_fields,
        columns=settings.columns,
    )
    recipes = [path for path in settings.inputs if path.suffix in RECIPE_SUFFIXES]
    others = [path for path in settings.inputs if path.suffix not in RECIPE_SUFFIXES]
    inputs, left_out = understand(others, options) if others else ([], [])
    weights: dict[str, float] = {}
    without_files: set[str] = set()
    for path in recipes:
        recipe = read_recipe(path, settings.recipe_folder)
        if repeated := sorted(weights.keys() & recipe.weights):
            raise UserError(f"{path} has the source {repeated[0]} of another recipe: join the two")
        inputs, left_out = inputs + recipe.inputs, left_out + recipe.left_out
        weights |= recipe.weights
        without_files.update(recipe.without_files)
    _check_output(settings.output)
    if settings.tokenizer is not None:
        Tokenizer(settings.tokenizer)
    inputs = numbered(inputs)
    for entry in inputs:
        for text in entry.files:
            if text.state()[0] == 0:
                raise UserError(f"{text}: there is no text in it; leave it out or fill it")
    missing = sorted(without_files - {entry.name for entry in inputs})
    parts = [part for entry in inputs for part in parts_of(entry)]
    return _Understood(inputs, left_out, weights, missing, parts)


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
