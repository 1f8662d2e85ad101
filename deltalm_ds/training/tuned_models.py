"""The model of a fine-tuning run: starting weights with the vocabulary that the run's data need."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.model.new_weights import whole
from deltalm_ds.text.piece_models import piece_origins, with_new_pieces
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.training.models import StartingModel, new_model, stored_model, vocabulary_fields
from deltalm_ds.training.tuning_settings import FinetuneSettings
from deltalm_ds.weights import OnDemand, load_pretrained, parameter_shapes, read_description
from deltalm_ds.weights.description import CONFIG_FILE, TOKENIZER_FILE
from deltalm_ds.weights.safe import read_json
from deltalm_ds.weights.source import TOKEN_TABLE
from deltalm_ds.weights.vocabulary_change import change_vocabulary

_COUNTED_SEQUENCES = 1 << 19


@dataclass(frozen=True)
class StartingPoint:
    """What is known of the starting weights before they are read."""

    tokenizer: Path
    """Its SentencePiece file."""
    vocabulary: Vocabulary
    """What its ids mean."""
    tags: Mapping[str, int]
    """Language → id of its tag, where the weights have tags."""


def find_start(settings: FinetuneSettings) -> StartingPoint:
    """The tokenizer of --from, or of a new model; UserError where there is none."""
    path = settings.from_
    if path is not None and _is_described(path):
        if settings.tokenizer is not None:
            raise UserError(f"{path} has a tokenizer of its own: leave --tokenizer out")
        description = read_description(path)
        tags = description.task.tags if description.task is not None else {}
        return StartingPoint(description.tokenizer, description.vocabulary, tags)
    tokenizer = settings.tokenizer
    if tokenizer is None and path is not None and (path / TOKENIZER_FILE).is_file():
        tokenizer = path / TOKENIZER_FILE
    if tokenizer is None:
        raise UserError(f"--from {path} has no tokenizer beside it: give its SentencePiece file, --tokenizer")
    return StartingPoint(tokenizer, Tokenizer(tokenizer).vocabulary, {})


def tuned_vocabulary(
    start: StartingPoint, languages: list[str] | None, settings: FinetuneSettings
) -> tuple[bytes, Vocabulary, dict[str, int]]:
    """The run's SentencePiece model, its vocabulary, and the tags of the start and of `languages`.

    New tags stand behind those that there are, so that these keep their order. Without `languages`, for a
    task that has no tags, there are none, whatever the start has.
    """
    model = start.tokenizer.read_bytes()
    if settings.new_pieces is not None:
        try:
            pieces = settings.new_pieces.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--new-pieces {settings.new_pieces} cannot be read: {error}") from error
        model = with_new_pieces(model, pieces)
        num_pieces = start.vocabulary.num_pieces + len(dict.fromkeys(pieces))
    else:
        num_pieces = start.vocabulary.num_pieces
    names = [] if languages is None else list(dict.fromkeys([*start.tags, *languages]))
    sentinels = start.vocabulary.num_sentinels
    vocabulary = Vocabulary(num_pieces, num_sentinels=sentinels, num_tags=len(names))
    return model, vocabulary, {name: vocabulary.first_tag_id + number for number, name in enumerate(names)}


def build_start(
    settings: FinetuneSettings, start: StartingPoint, corpus: Corpus, tags: Mapping[str, int]
) -> StartingModel:
    """The model that tuning begins with."""
    if settings.from_ is None:
        config = DeltaLMConfig.preset(
            settings.preset or "tiny",
            **vocabulary_fields(corpus.vocabulary),
            dropout=settings.dropout,
        )
        return new_model(DeltaLM, config, settings.seed)
    old = start.vocabulary
    of_vocabulary: dict[str, Any] = {} if _is_described(settings.from_) else vocabulary_fields(old)
    loaded = load_pretrained(settings.from_, seed=settings.seed, dropout=settings.dropout, **of_vocabulary)
    shape = parameter_shapes(loaded.config)[TOKEN_TABLE]
    change = change_vocabulary(
        whole(loaded.weights, TOKEN_TABLE, shape),
        loaded.config,
        old,
        corpus.vocabulary,
        pieces=None
        if settings.new_pieces is None
        else piece_origins(start.tokenizer.read_bytes(), corpus.tokenizer_path.read_bytes()),
        old_tags=start.tags,
        new_tags=tags,
        tag_start=settings.tag_start,
        tag_text={language: counts[: old.mask_id] for language, counts in _text_counts(corpus).items()},
        seed=settings.seed,
    )
    weights = loaded.weights.replaced(TOKEN_TABLE, change.table)
    return stored_model(change.config, weights, "\n".join([str(loaded.report), *change.report]))


def reopen_start(folder: Path, settings: FinetuneSettings) -> StartingModel:
    """The model that a resumed run began with: its sizes, and the weights that it leaves as they are."""
    loaded = load_pretrained(folder, dropout=settings.dropout)
    return stored_model(loaded.config, loaded.weights, f"weights of the checkpoint, {folder}")


def on_demand(start: StartingModel) -> OnDemand:
    """The weights that a model begins with, to be saved one by one."""
    shapes = {name: parameter.shape for name, parameter in start.model.named_parameters()}
    return OnDemand(shapes, lambda name: whole(start.weights, name, shapes[name]))


def freeze(model: nn.Module, patterns: tuple[str, ...]) -> list[str]:
    """Leave the parameters that the patterns name out of training; their names.

    UserError for a pattern that names none, and where nothing is left to train.
    """
    frozen: dict[str, None] = {}
    for pattern in patterns:
        names = [name for name, _ in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            there = ", ".join(
                dict.fromkeys(name.split(".")[0] + ".*" for name, _ in model.named_parameters())
            )
            raise UserError(f"--freeze {pattern} names no parameter: these are called {there}")
        frozen |= dict.fromkeys(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("--freeze leaves nothing to train: name fewer parameters")
    return list(frozen)


def _is_described(path: Path) -> bool:
    return (path / CONFIG_FILE).is_file() and "tokenizer" in read_json(path / CONFIG_FILE)


def _text_counts(corpus: Corpus) -> dict[str, NDArray[np.int64]]:
    """How often each id occurs in text of each language, [rows]: in targets, else in sources.

    Of a long source the first tokens are enough, which stand in no order.
    """
    counts: dict[tuple[str, int], NDArray[np.int64]] = {}
    for source in (*corpus.sources("train"), *corpus.sources("valid")):
        lengths = source.dataset.lengths[:_COUNTED_SEQUENCES]
        tokens = source.dataset.tokens(0, int(lengths.sum(dtype=np.int64)))
        of_target = np.repeat(np.arange(len(lengths)) % 2, lengths)
        for side, language in enumerate(source.languages):
            found = np.bincount(tokens[of_target == side], minlength=corpus.vocabulary.num_rows)
            counts[language, side] = counts.get((language, side), 0) + found
    sources, targets = (
        {name: found for (name, at), found in counts.items() if at == side} for side in (0, 1)
    )
    return sources | targets
