"""Models that the tests of exporting write and read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from model_samples import model as random_model

from deltalm_ds.exporting.model import ExportModel, read_model, with_tokenizer
from deltalm_ds.text.tokenizer import train_tokenizer
from deltalm_ds.weights import TaskDescription

PARITY = Path(__file__).parent.parent / "model" / "data" / "parity"
"""A small model in the released layout, with what the published code computes from it."""


def released_model() -> ExportModel:
    """The model of PARITY."""
    return read_model(PARITY / "released.pt", heads=4)


def sample_model(**changes: object) -> ExportModel:
    """Random weights of width 32 over 60 rows; see model_samples."""
    built = random_model(**changes)
    weights = {name: parameter.detach() for name, parameter in built.named_parameters()}
    return ExportModel(origin="made", config=built.config, weights=weights)


def same_weights(found: ExportModel, expected: ExportModel) -> None:
    """AssertionError where two models differ in a parameter."""
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        assert torch.equal(found.weights[name], tensor), name


def tokenizer_file(folder: Path, num_pieces: int) -> Path:
    """A SentencePiece model of so many pieces, in `folder`."""
    path = folder / "any.model"
    lines = ["nosa teki lumo bane", "teki tado nosa bane loki", "fumi gari teba lode mino rasu"] * 20
    path.write_bytes(train_tokenizer(lines, num_pieces, 1.0))
    return path


def described(model: ExportModel, folder: Path, task: TaskDescription | None = None) -> ExportModel:
    """The model with a tokenizer of 24 pieces, written into `folder`."""
    model = with_tokenizer(model, tokenizer_file(folder, 24))
    return dataclasses.replace(model, description=dataclasses.replace(model.described(), task=task))
