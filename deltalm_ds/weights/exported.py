"""Hugging Face folders of DeltaLM that `deltalm_ds.convert` wrote: their config.json, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.weights.fairseq import DELTALM_NAMING
from deltalm_ds.weights.interleaved import InterleavedSource
from deltalm_ds.weights.safe import check_tensors, load_safetensors

MODEL_TYPE = "deltalm"

NAMING = DELTALM_NAMING
"""The modelling file names its parameters as fairseq does; the tied table has the encoder's name alone."""

_FIELDS = {
    "vocab_size": "vocabulary_rows",
    "d_model": "width",
    "encoder_layers": "num_encoder_layers",
    "decoder_layers": "num_decoder_blocks",
    "encoder_attention_heads": "num_heads",
    "decoder_attention_heads": "num_heads",
    "encoder_ffn_dim": "feed_forward_width",
    "decoder_ffn_dim": "feed_forward_width",
    "max_position_embeddings": "max_positions",
    "normalize_embedding": "embedding_layer_norm",
    "normalize_before": "pre_layer_norm",
    "layer_norm_eps": "layer_norm_epsilon",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "mask_id": "mask_id",
    "first_sentinel_id": "first_sentinel_id",
    "num_sentinels": "num_sentinels",
}


def sizes_for_transformers(config: DeltaLMConfig) -> dict[str, Any]:
    """The fields of config.json that say what `config` says."""
    return {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}


def read_exported(folder: Path, content: dict[str, Any]) -> InterleavedSource:
    """The DeltaLM in `folder`, whose config.json holds `content`; UserError where the two do not fit."""
    path = folder / "config.json"
    lacking = sorted(_FIELDS.keys() - content.keys())
    if lacking:
        raise UserError(f"{path}: lacks {', '.join(lacking)}; take another copy of it")
    fields = {ours: content[theirs] for theirs, ours in _FIELDS.items()}
    for theirs, ours in _FIELDS.items():
        if content[theirs] != fields[ours]:
            raise UserError(f"{path}: {theirs} is {content[theirs]}, where DeltaLM has {fields[ours]}")
    try:
        config = DeltaLMConfig.from_dict(fields)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    weights = folder / "model.safetensors"
    tensors = check_tensors(weights, load_safetensors(weights)[0])
    source = InterleavedSource(
        path=folder,
        layout="DeltaLM in Hugging Face's layout",
        tensors=tensors,
        naming=NAMING,
        known={"num_heads": config.num_heads, "layer_norm_epsilon": config.layer_norm_epsilon},
        left_out={},
        table_copies=(),
    )
    for ours, value in source.known.items():
        if getattr(config, ours) != value:
            raise UserError(
                f"{path}: {ours} would be {getattr(config, ours)}, but the tensors have {value}; take "
                "config.json and weights from the same model"
            )
    source.suggested = config.to_dict()
    return source
