"""The tied token table, and what turns tokens into the first hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from deltalm_ds import ops
from deltalm_ds.model.config import POSITION_OFFSET, DeltaLMConfig
from deltalm_ds.model.new_weights import NormalRows, parameter
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import BatchDropout, Site
from deltalm_ds.model.sublayers import Norm

PAD = 1

ResultT = TypeVar("ResultT")


class TokenTable(nn.Module):
    """One [rows, width] table for the encoder's input, the decoder's input and the output projection."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__()
        self.weight = _table(config.vocabulary_rows, config.width)

    def forward(self, operation: Callable[..., ResultT], inputs: Tensor, *settings: object) -> ResultT:
        """operation(inputs, weight, *settings).

        Every use passes through here because ZeRO-3 gathers a table only for its module's forward.
        """
        return operation(inputs, self.weight, *settings)


class EmbeddedStack(nn.Module):
    """What encoder and decoder share: positions, embedding LayerNorm, the norm behind the last layer."""

    def __init__(self, config: DeltaLMConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.positions = PositionTable(config)
        self.embedding_norm = Norm(config) if config.embedding_layer_norm else None
        self.final_norm = Norm(config) if config.pre_layer_norm else None

    def embed(self, vectors: Tensor, packed: PackedTokens, dropout: BatchDropout | None) -> Tensor:
        """Token vectors [tokens, width] to hidden states [tokens, width]."""
        hidden = vectors + self.positions(packed.index_in_sequence)
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        if dropout is None:
            return hidden
        return ops.apply_dropout(hidden, dropout.at(self.config.dropout, self.layer, Site.EMBEDDING))


class PositionTable(nn.Module):
    """Learned positions [max_positions + 2, width]; see POSITION_OFFSET."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__()
        self.weight = _table(config.position_rows, config.width)

    def forward(self, index_in_sequence: Tensor) -> Tensor:
        """[tokens] int64 to [tokens, width]."""
        return F.embedding(index_in_sequence + POSITION_OFFSET, self.weight)


def check_length(config: DeltaLMConfig, packed: PackedTokens) -> None:
    """ValueError where a sequence has more tokens than the model has positions."""
    if packed.max_length > config.max_positions:
        raise ValueError(
            f"a sequence of {packed.max_length} tokens, but the model has {config.max_positions} positions; "
            "cut it, or raise max_positions"
        )


def _table(rows: int, width: int) -> nn.Parameter:
    """[rows, width] of N(0, 1 / width), the padding row zero."""
    return parameter((rows, width), NormalRows(width, zero_row=PAD))
