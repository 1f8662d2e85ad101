"""Our own model folders: config.json and model.safetensors, the tied table stored once.

A folder that is to be used by itself has its tokenizer too, and config.json describes it (description.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.files import file_tree_hash, write_bytes_atomically, write_text_atomically
from deltalm_ds.model.config import DecoderForm, DeltaLMConfig
from deltalm_ds.weights.description import CONFIG_FILE, TOKENIZER_FILE, Description
from deltalm_ds.weights.names import parameter_shapes
from deltalm_ds.weights.safe import check_tensors, load_safetensors
from deltalm_ds.weights.source import Source, fixed_fields
from deltalm_ds.weights.stored import OnDemand
from deltalm_ds.weights.streaming import write_weights

FORMAT = "deltalm-ds model"
VERSION = 1

WEIGHTS_FILE = "model.safetensors"


class Model(Protocol):
    """What saving needs of a DeltaLM."""

    @property
    def config(self) -> DeltaLMConfig:
        """Its sizes."""

    def state_dict(self) -> Mapping[str, Any]:
        """Parameters by name; each is read once, one after the other."""


class OwnSource(Source):
    """A model in the names and shapes of this project."""

    def source_of(self, parameter: str, decoder: DecoderForm) -> str:
        """The parameter itself."""
        return parameter


def save_own(model: Model, path: str | Path, description: Description | None = None) -> None:
    """Write `model` into the folder `path` as config.json and model.safetensors, in the model's own dtype.

    With a description, that goes into config.json and its tokenizer beside it.

    Each file is written aside, synced and renamed; the weights carry the configuration too, so that a save
    that was interrupted between the two over an older model is noticed when loading.
    UserError if the folder cannot be written; what was there before then stays.
    """
    folder = Path(path)
    tensors = _parameters(model)
    configuration = model.config.to_dict()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "version": VERSION, "model": configuration}
        if description is not None:
            if description.tokenizer != folder / TOKENIZER_FILE:
                write_bytes_atomically(folder / TOKENIZER_FILE, description.tokenizer.read_bytes())
            content |= description.to_json()
        write_weights(folder / WEIGHTS_FILE, tensors, {"config": json.dumps(configuration)})
        if description is not None:
            content["weights"] = _weights_entry(folder / WEIGHTS_FILE)
        write_text_atomically(folder / CONFIG_FILE, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"{folder}: cannot save the model there ({error}); free some space or choose another folder"
        ) from error


def read_own(folder: Path, content: dict[str, Any]) -> OwnSource:
    """The model in `folder`, whose config.json holds `content`."""
    config_path = folder / CONFIG_FILE
    if content.get("version") != VERSION:
        raise UserError(
            f"{config_path}: version {content.get('version')!r} of the format, and this program reads "
            f"version {VERSION}; use a newer deltalm-ds"
        )
    if not isinstance(content.get("model"), dict):
        raise UserError(f"{config_path}: lacks the model's configuration; take another copy of it")
    try:
        config = DeltaLMConfig.from_dict(content["model"])
    except UserError as error:
        raise UserError(f"{config_path}: {error}") from error
    _check_weights_file(folder, content.get("weights"))
    tensors, metadata = load_safetensors(folder / WEIGHTS_FILE)
    _check_same_model(folder, config, metadata)
    return OwnSource(
        path=folder,
        layout=FORMAT,
        tensors=check_tensors(folder / WEIGHTS_FILE, tensors),
        known=fixed_fields(config),
        suggested=config.to_dict(),
    )


def _weights_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_tree_hash(path)}


def _check_weights_file(folder: Path, entry: Any) -> None:
    """UserError unless the weights are those that a described folder's config.json was written for."""
    path = folder / WEIGHTS_FILE
    if entry is None or not path.is_file():  # what reads it says that it is missing
        return
    if _weights_entry(path) != entry:
        raise UserError(
            f"{path} is not the file that {CONFIG_FILE} was written for (its size or hash differs): it was "
            "changed, or a save was interrupted; take another copy of the model, or save it again"
        )


def _parameters(model: Model) -> Mapping[str, Tensor]:
    state, expected = model.state_dict(), parameter_shapes(model.config)
    assert state.keys() == expected.keys(), (
        f"the model and its configuration differ in {state.keys() ^ expected}"
    )

    def make(name: str) -> Tensor:
        tensor: Tensor = state[name].detach()
        found = tuple(tensor.shape)
        assert found == expected[name], f"{name} is {found}, and its configuration says {expected[name]}"
        return tensor

    return OnDemand(state, make)


def _check_same_model(folder: Path, config: DeltaLMConfig, metadata: dict[str, str]) -> None:
    """Dropout rates may have been edited since; everything else must be what the weights were saved with."""
    try:
        saved = fixed_fields(DeltaLMConfig.from_dict(json.loads(metadata["config"])))
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"{folder / WEIGHTS_FILE}: does not carry a configuration of deltalm-ds; save the model again"
        ) from error
    for name, value in fixed_fields(config).items():
        if saved[name] != value:
            raise UserError(
                f"{folder}: {CONFIG_FILE} says {name} {value}, {WEIGHTS_FILE} was saved with {saved[name]}; "
                "they are of different models, or a save was interrupted: save the model again"
            )
