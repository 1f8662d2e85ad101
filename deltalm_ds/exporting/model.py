"""What is to be exported: weights and sizes of any source, and what it says of itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.new_weights import whole
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights.description import Description, read_description
from deltalm_ds.weights.layouts import read_source
from deltalm_ds.weights.names import parameter_shapes
from deltalm_ds.weights.own import FORMAT
from deltalm_ds.weights.safe import read_json
from deltalm_ds.weights.source import fixed_fields
from deltalm_ds.weights.stored import OnDemand

DtypeName = Literal["fp32", "bf16", "fp16"]

Quantization = Literal[
    "float32", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16"
]
"""Types of weights that CTranslate2 knows."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What `--dtype` names."""

_HEAD_WIDTH = 64  # of every published model of the family


@dataclass(frozen=True, kw_only=True)
class ExportModel:
    """A model as every writer takes it."""

    origin: str
    """Where the weights come from, in words, for printing."""
    config: DeltaLMConfig
    """Its sizes."""
    weights: Mapping[str, Tensor]
    """Every parameter by our name, on the CPU, perhaps read or made on demand; the tied table once."""
    description: Description | None = None
    """Tokenizer, languages and task, as far as the source has them."""

    def state_dict(self) -> Mapping[str, Any]:
        """The parameters, as saving wants them."""
        return self.weights

    def num_bytes(self, dtype: DtypeName) -> int:
        """Of the weights in this type of numbers."""
        num_elements = sum(math.prod(shape) for shape in parameter_shapes(self.config).values())
        return num_elements * DTYPES[dtype].itemsize

    def build(self) -> DeltaLM:
        """The model itself, sharing these tensors."""
        with torch.device("meta"):
            model = DeltaLM(self.config)
        model.load_state_dict(self.state_dict(), assign=True)
        return model

    def described(self) -> Description:
        """The description; UserError where there is none."""
        if self.description is None:
            raise UserError("the source has no tokenizer, which this target needs; give --tokenizer FILE")
        return self.description


def read_model(path: Path, heads: int | None = None) -> ExportModel:
    """The model at `path`, whose layout is recognised; fp32.

    `heads` is for files that do not say how many attention heads there are; without it, width / 64.
    UserError for whatever `load_pretrained` refuses, and for a width that is no multiple of 64.
    """
    source = read_source(path)
    overrides: dict[str, Any] = {} if heads is None else {"num_heads": heads}
    if heads is None and "num_heads" not in source.known:
        width = source.known["width"]
        if width % _HEAD_WIDTH:
            raise UserError(
                f"{path}: the file does not say how many attention heads the model has, and its width "
                f"{width} is no multiple of {_HEAD_WIDTH}; give --heads"
            )
        overrides["num_heads"] = width // _HEAD_WIDTH
    config = source.resolve(None, overrides)
    stored, report = source.fill(config, seed=0)
    shapes = parameter_shapes(config)
    weights = OnDemand(shapes, lambda name: whole(stored, name, shapes[name]))
    description = None
    if source.layout == FORMAT and "tokenizer" in read_json(path / "config.json"):
        description = read_description(path)
    return ExportModel(origin=str(report), config=config, weights=weights, description=description)


def average(model: ExportModel, others: Iterable[ExportModel]) -> ExportModel:
    """The mean of the weights of models of one shape, summed in fp64 as it is read; all else is the first's.

    UserError names the first field in which two shapes differ.
    """
    models = [model]
    expected = fixed_fields(model.config)
    for other in others:
        for name, value in fixed_fields(other.config).items():
            if value != expected[name]:
                where = other.origin.splitlines()[0]
                raise UserError(
                    f"--average: {name} is {expected[name]} in the first source, and {value} in the {where}; "
                    "only models of one shape have an average"
                )
        models.append(other)

    def make(name: str) -> Tensor:
        total = models[0].weights[name].double()
        for other in models[1:]:
            total += other.weights[name]
        return (total / len(models)).float()

    origin = "\n".join(["average of", *(each.origin for each in models)])
    return dataclasses.replace(model, origin=origin, weights=OnDemand(model.weights, make))


def with_tokenizer(model: ExportModel, path: Path) -> ExportModel:
    """The model with the SentencePiece file `path` for its tokenizer.

    UserError where the source has one already, or where the file does not fit the model's table.
    """
    if model.description is not None:
        raise UserError(f"--tokenizer {path}: the source has its tokenizer already; leave the option out")
    config = model.config
    num_pieces = Tokenizer(path).vocabulary.num_pieces
    rows = config.vocabulary_rows
    if num_pieces + 1 > rows or (config.num_sentinels and config.mask_id != num_pieces + 1):
        raise UserError(
            f"--tokenizer {path}: has {num_pieces:,} pieces, and the model has {rows:,} rows with <mask> at "
            f"{config.mask_id:,}; give the tokenizer that the model was trained with"
        )
    vocabulary = Vocabulary(
        num_pieces,
        num_sentinels=config.num_sentinels,
        first_sentinel_id=config.first_sentinel_id if config.num_sentinels else 0,
    )
    return dataclasses.replace(model, description=Description(tokenizer=path, vocabulary=vocabulary))


def cast(model: ExportModel, dtype: DtypeName) -> ExportModel:
    """The model in another type of numbers, made when they are read; then UserError for one that is too large
    for it.
    """

    def make(name: str) -> Tensor:
        tensor = model.weights[name].to(DTYPES[dtype])
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} holds numbers that {dtype} cannot; convert with --dtype fp32 or bf16")
        return tensor

    return dataclasses.replace(model, weights=OnDemand(model.weights, make))
