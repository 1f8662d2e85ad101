"""A model's sizes, read from the shapes of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import POSITION_OFFSET
from deltalm_ds.weights.names import Naming, count_layers
from deltalm_ds.weights.source import TOKEN_TABLE


def measure(path: Path, tensors: dict[str, Tensor], naming: Naming) -> dict[str, Any]:
    """The fields of DeltaLMConfig that the encoder's tensors show: all sizes but the number of heads."""
    width = _matrix(path, tensors, naming.name_of(TOKEN_TABLE)).shape[1]
    position_rows = len(_matrix(path, tensors, naming.name_of("encoder.positions.weight")))
    inner = len(_matrix(path, tensors, naming.name_of("encoder.layers.0.feed_forward.fc1_weight")))
    return {
        "width": width,
        "feed_forward_width": inner,
        "num_encoder_layers": count_layers(path, tensors, naming.layers["encoder.layers"]),
        "max_positions": position_rows - POSITION_OFFSET,
    }


def _matrix(path: Path, tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise UserError(f"{path}: lacks {name}; take another copy of the checkpoint")
    if tensors[name].ndim != 2:
        raise UserError(f"{path}: {name} has shape {list(tensors[name].shape)}, not rows and columns")
    return tensors[name]
