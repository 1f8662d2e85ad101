"""DeltaLM checkpoints of other layouts, encoder and interleaved decoder under their own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DecoderForm, DeltaLMConfig
from deltalm_ds.weights.names import Naming, count_layers
from deltalm_ds.weights.sizes import measure
from deltalm_ds.weights.source import TOKEN_TABLE, Source


class InterleavedSource(Source):
    """A whole DeltaLM whose parameters are ours by another name."""

    def __init__(
        self,
        path: Path,
        layout: str,
        tensors: dict[str, Tensor],
        naming: Naming,
        known: dict[str, Any],
        left_out: dict[str, str],
        table_copies: tuple[str, ...],
    ) -> None:
        """`table_copies`: names under which the layout repeats the one tied token table."""
        sizes = measure(path, tensors, naming)
        table_name = naming.name_of(TOKEN_TABLE)
        self._naming = naming
        super().__init__(
            path=path,
            layout=layout,
            tensors=tensors,
            known={
                **sizes,
                "num_decoder_blocks": count_layers(path, tensors, naming.layers["decoder.blocks"]),
                "decoder": "interleaved",
                "embedding_layer_norm": naming.name_of("encoder.embedding_norm.weight") in tensors,
                "pre_layer_norm": naming.name_of("encoder.final_norm.weight") in tensors,
                "layer_norm_epsilon": 1e-5,
                **known,
            },
            suggested=_special_tokens(len(tensors[table_name])),
            left_out=left_out | _tied(path, tensors, table_name, table_copies),
        )

    def source_of(self, parameter: str, decoder: DecoderForm) -> str:
        """The same parameter's name in the checkpoint."""
        return self._naming.name_of(parameter)

    def remarks_on(self, config: DeltaLMConfig) -> list[str]:
        """Says when the model has no sentinels to pre-train with."""
        if config.num_sentinels:
            return self.remarks
        return [
            *self.remarks,
            "no sentinels: a token table of this size does not show where they are; give mask_id, "
            "first_sentinel_id and num_sentinels to pre-train",
        ]


def _special_tokens(rows: int) -> dict[str, int]:
    """Where `<mask>` and the sentinels are in a table of so many rows, if nobody says.

    Only the released size is known. A fine-tuned model's table ends with the pieces of its dictionary; it is
    taken as it is, for random rows behind it would take part in every output.
    """
    default = DeltaLMConfig()
    if rows == default.vocabulary_rows:
        return {}
    return {"vocabulary_rows": rows, "mask_id": rows, "first_sentinel_id": rows, "num_sentinels": 0}


def _tied(path: Path, tensors: dict[str, Tensor], table_name: str, copies: tuple[str, ...]) -> dict[str, str]:
    """The repetitions of the token table as left out; UserError if one differs from it."""
    present = [name for name in copies if name in tensors]
    for name in present:
        if not torch.equal(tensors[name], tensors[table_name]):
            raise UserError(
                f"{path}: {name} differs from {table_name}, but DeltaLM has one table for both sides and the "
                "output; train with --share-all-embeddings to get one"
            )
    return dict.fromkeys(present, f"the same table as {table_name}")
