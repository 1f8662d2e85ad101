"""A chunk of lines to the text of its outputs, in whatever process does it."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deltalm_ds.decoding.allowed import tokens_of_file
from deltalm_ds.decoding.forms import formatted
from deltalm_ds.decoding.lines import Chunk
from deltalm_ds.decoding.model_folder import ModelFolder, chosen_device, chosen_dtype
from deltalm_ds.decoding.options import GenerateSettings
from deltalm_ds.decoding.remarks import Counts
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.decoding.translator import TextGenerator
from deltalm_ds.errors import UserError
from deltalm_ds.files import sha256_of
from deltalm_ds.text.vocabulary import Vocabulary


class Result(NamedTuple):
    """Of a chunk."""

    text: str
    """Lines to write."""
    counts: Counts
    """What there was, and what looks wrong."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done: options and the model's description put together, before weights are read."""

    settings: GenerateSettings
    """The options."""
    folder: ModelFolder
    """The model."""
    language: str
    """The one to write, or "" where nothing depends on it."""
    search: SearchSettings
    """The search, resolved."""
    first_tokens: tuple[int, ...]
    """What every output begins with."""
    device: torch.device
    """Where to compute."""

    @classmethod
    def of(cls, settings: GenerateSettings, rank_on_node: int) -> Plan:
        """UserError for options that the model or the machine cannot serve."""
        folder = ModelFolder.open(settings.model)
        task = folder.description.task
        device = chosen_device(settings.device, rank_on_node)
        if settings.processes > 1 and device.type != "cpu":
            raise UserError(
                "--processes is for CPUs: on GPUs start one process for each, with mpirun -np, or give "
                "--device cpu"
            )
        return cls(
            settings=settings,
            folder=folder,
            language=folder.target_language(settings.target_language),
            search=settings.search.resolved(task.search if task is not None else {}),
            first_tokens=(*_forced_token(folder, settings), *_prefix(folder, settings)),
            device=device,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What the output depends on beside its input, plain JSON."""
        settings = self.settings
        pieces = settings.allow_pieces_of
        return {
            "model": self.folder.fingerprint(),
            "target language": self.language,
            "output format": settings.chosen_format,
            "scoring": settings.score_targets is not None,
            "split sentences": settings.split_sentences,
            "first tokens": list(self.first_tokens),
            "allowed pieces": None if pieces is None else sha256_of(pieces),
            "batch tokens": settings.batch_tokens,
            "buffer lines": settings.buffer_lines,
            "dtype": chosen_dtype(settings.dtype, self.device),
            **dataclasses.asdict(self.search),
        }


class ChunkWorker:
    """The loaded model, which works on one chunk after the other.

    `num_sharing` processes share this machine's cores.
    """

    def __init__(self, plan: Plan, num_sharing: int) -> None:
        torch.set_num_threads(max(1, torch.get_num_threads() // num_sharing))
        settings = plan.settings
        model = plan.folder.load(plan.device, chosen_dtype(settings.dtype, plan.device))
        self._form, self._language = settings.chosen_format, plan.language
        self._generator = TextGenerator(
            model,
            plan.folder.encoder(model.config.max_positions),
            plan.search,
            batch_tokens=settings.batch_tokens,
            allowed=_allowed(plan, model.config.vocabulary_rows),
            first_tokens=plan.first_tokens,
            is_split=settings.split_sentences,
        )

    def __call__(self, chunk: Chunk) -> Result:
        """Its outputs."""
        languages = [self._language] * len(chunk.texts)
        if chunk.targets is None:
            outputs = self._generator.generate(chunk.texts, languages, chunk.first_line)
        else:
            outputs = self._generator.score(chunk.texts, chunk.targets, languages, chunk.first_line)
        return Result(formatted(self._form, chunk.first_line, chunk.texts, outputs.ranked), outputs.counts)


def work_apart(settings: GenerateSettings, chunk: Chunk) -> Result:
    """The same in one of the worker processes, which keeps its model."""
    return _worker_of(settings)(chunk)


@cache
def _worker_of(settings: GenerateSettings) -> ChunkWorker:
    return ChunkWorker(Plan.of(settings, rank_on_node=0), settings.processes)


def _allowed(plan: Plan, num_rows: int) -> NDArray[np.bool_] | None:
    path = plan.settings.allow_pieces_of
    return None if path is None else tokens_of_file(plan.folder.tokenizer, path, num_rows)


def _forced_token(folder: ModelFolder, settings: GenerateSettings) -> list[int]:
    name = settings.forced_first_token
    if name is None:
        return []
    found = folder.tags.get(name, folder.tokenizer.id_of_piece(name))
    if found is None:
        tags = f", and its tags are of {', '.join(folder.tags)}" if folder.tags else ""
        raise UserError(
            f"--forced-first-token {name}: the tokenizer of {folder.path} has no such piece (▁ begins a "
            f"word){tags}"
        )
    return [found]


def _prefix(folder: ModelFolder, settings: GenerateSettings) -> list[int]:
    tokens = folder.tokenizer.encode(settings.prefix)
    if Vocabulary.UNK in tokens:
        raise UserError(f"--prefix {settings.prefix!r} has characters that {folder.path} does not know")
    return tokens
