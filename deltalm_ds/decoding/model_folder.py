"""Opening a model folder to generate text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from deltalm_ds.decoding.options import DType
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.errors import UserError
from deltalm_ds.files import file_tree_hash
from deltalm_ds.model import DeltaLM
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.weights import Description, read_description
from deltalm_ds.weights.description import CONFIG_FILE
from deltalm_ds.weights.own import WEIGHTS_FILE
from deltalm_ds.weights.safe import read_json

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose description is read, and whose weights can be."""

    path: Path
    """The folder."""
    description: Description
    """What it says of itself."""

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """UserError, naming the file, for a folder without description or tokenizer, or a damaged one."""
        return cls(path, read_description(path))

    @property
    def tags(self) -> dict[str, int]:
        """Target language → id of its tag; empty where the model has none."""
        task = self.description.task
        return dict(task.tags) if task is not None else {}

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that it can be asked to write: of its tags, else any that it was tuned or trained on."""
        task = self.description.task
        if self.tags:
            return tuple(self.tags)
        tuned = task.target_languages if task is not None else ()
        return tuple(dict.fromkeys((*tuned, *self.description.languages)))

    def target_language(self, given: str | None) -> str:
        """The language to write, `given` or the only one it can be; "" if nothing depends on it.

        UserError, naming the known ones, for an unknown language, or where it has to be said.
        """
        known = ", ".join(self.languages)
        if given is not None:
            if self.languages and given not in self.languages:
                raise UserError(f"{self.path} does not write {given!r}: it knows {known}")
            return given
        task = self.description.task
        tuned = tuple(self.tags) or (task.target_languages if task is not None else ())
        if len(tuned) == 1:
            return tuned[0]
        if self.tags:
            raise UserError(f"{self.path} writes several languages: give --target-language, one of {known}")
        return ""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return self.description.open_tokenizer()

    def encoder(self, max_positions: int) -> TextEncoder:
        """What makes its sources and targets, cut to the task's lengths and the model's positions."""
        task = self.description.task
        source, target = (task.max_source_length, task.max_target_length) if task else (max_positions,) * 2
        return TextEncoder(
            self.tokenizer,
            self.tags,
            max_source_length=min(source, max_positions),
            max_target_length=min(target, max_positions),
        )

    def fingerprint(self) -> str:
        """A hash in hexadecimal of weights, tokenizer and description."""
        digest = hashlib.sha256((self.path / CONFIG_FILE).read_bytes())
        if "weights" not in read_json(self.path / CONFIG_FILE):  # where it is, it has their hash
            digest.update(file_tree_hash(self.path / WEIGHTS_FILE).encode())
        return digest.hexdigest()

    def load(self, device: torch.device, dtype: DType) -> DeltaLM:
        """The model, without gradients.

        UserError for weights that are missing, damaged, not those of the description, or without decoder.
        """
        model = DeltaLM.from_pretrained(self.path)
        if model.config.num_decoder_blocks == 0:
            raise UserError(f"{self.path} is an encoder by itself and writes no text: give a whole DeltaLM")
        vocabulary = self.description.vocabulary
        if vocabulary.num_rows > model.config.vocabulary_rows:
            raise UserError(
                f"{self.path / CONFIG_FILE} describes a vocabulary of {vocabulary.num_rows:,} rows, and the "
                f"model has {model.config.vocabulary_rows:,}: take another copy of the model"
            )
        return model.to(device=device, dtype=_DTYPES[dtype]).requires_grad_(False)


def chosen_device(name: str | None, rank_on_node: int) -> torch.device:
    """The device of that name, or this rank's GPU, or the CPU; UserError for one that is not here."""
    if name is None:
        count = torch.cuda.device_count()
        return torch.device("cuda", rank_on_node % count) if count else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def chosen_dtype(name: DType | None, device: torch.device) -> DType:
    """The type of that name; bf16 on GPUs that have it, else fp32."""
    if name is not None:
        return name
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"
