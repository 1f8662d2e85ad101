"""Starting a DeltaLM from an XLM-R or InfoXLM encoder: its layers also make up the decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DecoderForm, DeltaLMConfig
from deltalm_ds.weights.cross_attention import CrossAttentionStart
from deltalm_ds.weights.names import InLayer, Naming
from deltalm_ds.weights.sizes import measure
from deltalm_ds.weights.source import TOKEN_TABLE, Source

LM_HEAD = "XLM-R's output layer, which DeltaLM has not"
"""Why its tensors are left out."""

_NUM_SENTINELS = 100
_ROWS_MULTIPLE = 8

_SOURCES: dict[DecoderForm, dict[str, tuple[int, str]]] = {
    "interleaved": {
        "self_attention": (0, "attention"),
        "first_feed_forward": (0, "feed_forward"),
        "cross_attention": (1, "attention"),
        "second_feed_forward": (1, "feed_forward"),
    },
    "standard": {
        "self_attention": (0, "attention"),
        "cross_attention": (0, "attention"),
        "feed_forward": (0, "feed_forward"),
    },
}
"""Sub-layer of the decoder's block or layer → (which of its encoder layers, the sub-layer there)."""

_LAYERS_EACH: dict[DecoderForm, int] = {"interleaved": 2, "standard": 1}
"""Encoder layers that one block or standard layer takes, in order."""


def encoder_origin(parameter: str, decoder: DecoderForm) -> str:
    """Our encoder parameter that holds the same numbers as `parameter` when a run starts from XLM-R.

    Block k takes its self-attention and first feed-forward layer from encoder layer 2k, its cross-attention
    and second feed-forward layer from layer 2k + 1, each with its LayerNorm; positions and embedding LN go
    to both sides. Standard layer k takes all of encoder layer k, as XLM's decoders do (Conneau and Lample,
    2019): consecutive layers were trained to read each other's output, those of a spread are not. Its
    cross-attention, where it does not start from nothing, is the self-attention again.
    """
    place = InLayer.parse(parameter)
    if place is None:
        return parameter.replace("decoder.", "encoder.")
    if place.layers == "encoder.layers":
        return parameter
    which, sublayer = _SOURCES[decoder][place.sublayer]
    index = _LAYERS_EACH[decoder] * place.index + which
    return str(dataclasses.replace(place, layers="encoder.layers", index=index, sublayer=sublayer))


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

    def resolve(self, config: DeltaLMConfig | None, overrides: Mapping[str, Any]) -> DeltaLMConfig:
        """Refuses a decoder that would need more layers than there are, too."""
        resolved = super().resolve(config, overrides)
        if (needed := _num_layers_needed(resolved)) > self._num_layers:
            blocks = {"interleaved": self._num_layers // 2, "standard": self._num_layers // 3 * 2}
            raise UserError(
                f"{self.path}: {resolved.num_decoder_blocks} decoder blocks ({resolved.decoder}) would need "
                f"{needed} XLM-R layers, and there are {self._num_layers}; ask for at most "
                f"{blocks[resolved.decoder]} decoder blocks"
            )
        return resolved

    def source_of(self, parameter: str, decoder: DecoderForm) -> str:
        """The XLM-R tensor of the encoder parameter that `parameter` starts from."""
        return self._naming.name_of(encoder_origin(parameter, decoder))

    def draws_cross_attention(self, decoder: DecoderForm, start: CrossAttentionStart | None) -> bool:
        """Of a standard decoder, unless it is to be copied; an interleaved one takes it from the encoder."""
        if start not in (None, *get_args(CrossAttentionStart)):
            raise UserError(f"cross_attention_start must be random or copied, not {start!r}")
        if decoder == "standard":
            return start != "copied"
        if start is not None:
            raise UserError(
                f"{self.path}: an interleaved decoder's cross-attention starts from every second layer; "
                "leave the start of cross-attention out, or ask for a standard decoder"
            )
        return False

    def remarks_on(self, config: DeltaLMConfig) -> list[str]:
        """Adds the layers that feed no decoder layer."""
        unused = ", ".join(map(str, range(_num_layers_needed(config), self._num_layers)))
        return [*self.remarks, f"left out of the decoder: layers {unused}"] if unused else self.remarks


def _num_layers_needed(config: DeltaLMConfig) -> int:
    """XLM-R layers that the decoder starts from."""
    return _LAYERS_EACH[config.decoder] * config.num_decoder_layers
