"""A model's modules and parameters, read from the model on torch's meta device, which holds no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.model.embedding import EmbeddedStack, PositionTable, TokenTable
from deltalm_ds.model.sublayers import Attention, FeedForward

Kind = Literal[
    "table",
    "positions",
    "embedding-norm",
    "self-attention",
    "cross-attention",
    "feed-forward",
    "final-norm",
]
Side = Literal["both", "source", "target"]


@dataclass(frozen=True)
class Parameter:
    """One tensor that is trained."""

    number: int
    """Its place in the order of `model.parameters()`."""
    size: int
    """Its numbers."""
    is_matrix: bool
    """Matrices have weight decay and so form an optimizer group of their own."""


@dataclass(frozen=True)
class Unit:
    """A module that has parameters of its own; ZeRO-3 gathers them together."""

    kind: Kind
    side: Side
    """Whose tokens pass through it."""
    layer: int | None
    """Number of its layer within the side's stack; None outside of the layers."""
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class ModelShape:
    """What of a model matters here."""

    config: DeltaLMConfig
    parameters: tuple[Parameter, ...]
    """In the order of `model.parameters()`."""
    units: tuple[Unit, ...]
    """In the order of the forward pass."""

    @property
    def num_parameters(self) -> int:
        """Trained numbers; the tied table counts once."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def optimizer_groups(self) -> tuple[tuple[Parameter, ...], ...]:
        """Matrices, then vectors, as training/optimizer.py has them."""
        groups = (
            tuple(parameter for parameter in self.parameters if parameter.is_matrix is matrices)
            for matrices in (True, False)
        )
        return tuple(group for group in groups if group)

    @property
    def table_size(self) -> int:
        """Numbers of the token table."""
        return self.config.vocabulary_rows * self.config.width


@lru_cache(None)
def shape_of(config: DeltaLMConfig) -> ModelShape:
    """The shape of the model that `config` describes."""
    with torch.device("meta"):
        model = DeltaLM(config)
    parameters = {
        id(tensor): Parameter(number, tensor.numel(), tensor.dim() > 1)
        for number, tensor in enumerate(model.parameters())
    }
    units = (
        Unit(kind, side, layer, tuple(parameters[id(tensor)] for tensor in module.parameters(recurse=False)))
        for module, kind, side, layer in _in_forward_order(model)
    )
    shape = ModelShape(config, tuple(parameters.values()), tuple(units))
    found = {parameter.number for unit in shape.units for parameter in unit.parameters}
    assert len(found) == len(parameters), "a module of the model is unknown here"
    return shape


def _in_forward_order(model: DeltaLM) -> Iterator[tuple[nn.Module, Kind, Side, int | None]]:
    assert isinstance(model.embedding, TokenTable)
    yield model.embedding, "table", "both", None
    sides: tuple[tuple[EmbeddedStack, nn.ModuleList, Side], ...] = (
        (model.encoder, model.encoder.layers, "source"),
        (model.decoder, model.decoder.blocks, "target"),
    )
    for stack, layers, side in sides:
        assert isinstance(stack.positions, PositionTable)
        yield stack.positions, "positions", side, None
        if stack.embedding_norm is not None:
            yield stack.embedding_norm, "embedding-norm", side, None
        for number, layer in enumerate(layers):
            for name, module in layer.named_children():
                yield module, _kind(name, module), side, number
        if stack.final_norm is not None:
            yield stack.final_norm, "final-norm", side, None


def _kind(name: str, module: nn.Module) -> Kind:
    """Of a sub-layer; layers list their sub-layers in the order in which they run."""
    if isinstance(module, FeedForward):
        return "feed-forward"
    assert isinstance(module, Attention)
    return "cross-attention" if name == "cross_attention" else "self-attention"
