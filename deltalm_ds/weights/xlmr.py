"""Starting a DeltaLM from an XLM-R or InfoXLM encoder: its layers also make up the decoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.weights.names import InLayer, Naming
from deltalm_ds.weights.sizes import measure
from deltalm_ds.weights.source import TOKEN_TABLE, Source

LM_HEAD = "XLM-R's output layer, which DeltaLM has not"
"""Why its tensors are left out."""

_NUM_SENTINELS = 100
_ROWS_MULTIPLE = 8

_SOURCES = {
    "self_attention": (0, "attention"),
    "first_feed_forward": (0, "feed_forward"),
    "cross_attention": (1, "attention"),
    "second_feed_forward": (1, "feed_forward"),
}
"""Sub-layer of decoder block k → (which of encoder layers 2k and 2k + 1, its sub-layer)."""


def encoder_origin(parameter: str) -> str:
    """Our encoder parameter that holds the same numbers as `parameter` when a run starts from XLM-R.

    Block k takes its self-attention and first feed-forward layer from encoder layer 2k, its cross-attention
    and second feed-forward layer from layer 2k + 1, each with its LayerNorm; positions and embedding LN go
    to both sides.
    """
    place = InLayer.parse(parameter)
    if place is None:
        return parameter.replace("decoder.", "encoder.")
    if place.layers == "encoder.layers":
        return parameter
    odd, sublayer = _SOURCES[place.sublayer]
    return str(
        dataclasses.replace(place, layers="encoder.layers", index=2 * place.index + odd, sublayer=sublayer)
    )


class XlmrSource(Source):
    """An XLM-R encoder under any family's names."""

    def __init__(
        self,
        path: Path,
        layout: str,
        tensors: dict[str, Tensor],
        naming: Naming,
        known: dict[str, Any],
        left_out: dict[str, str],
        remarks: list[str],
    ) -> None:
        sizes = measure(path, tensors, naming)
        self._naming = naming
        self._num_layers: int = sizes["num_encoder_layers"]
        rows = len(tensors[naming.name_of(TOKEN_TABLE)])
        rows_wanted = rows + _NUM_SENTINELS
        super().__init__(
            path=path,
            layout=layout,
            tensors=tensors,
            known={**sizes, "embedding_layer_norm": True, "pre_layer_norm": False, **known},
            suggested={
                "num_decoder_blocks": self._num_layers // 2,
                "mask_id": rows - 1,
                "first_sentinel_id": rows,
                "num_sentinels": _NUM_SENTINELS,
                "vocabulary_rows": rows_wanted + -rows_wanted % _ROWS_MULTIPLE,
            },
            left_out=left_out,
            remarks=remarks,
            has_sentinels=False,
        )

    def source_of(self, parameter: str) -> str:
        """The XLM-R tensor of the encoder parameter that `parameter` starts from."""
        place = InLayer.parse(parameter)
        if place and place.layers == "decoder.blocks" and place.index >= self._num_layers // 2:
            raise UserError(
                f"{self.path}: decoder block {place.index} would need XLM-R layers {2 * place.index} and "
                f"{2 * place.index + 1}, and there are {self._num_layers}; ask for at most "
                f"{self._num_layers // 2} decoder blocks"
            )
        return self._naming.name_of(encoder_origin(parameter))

    def remarks_on(self, config: DeltaLMConfig) -> list[str]:
        """Adds the layers that feed no decoder block."""
        first = 2 * config.num_decoder_blocks
        unused = ", ".join(map(str, range(first, self._num_layers)))
        return [*self.remarks, f"left out of the decoder: layers {unused}"] if unused else self.remarks
