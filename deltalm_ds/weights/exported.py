"""Hugging Face folders of DeltaLM that `deltalm_ds.convert` wrote: their config.json, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DecoderForm, DeltaLMConfig
from deltalm_ds.weights.fairseq import DELTALM_NAMING
from deltalm_ds.weights.safe import check_tensors, load_safetensors
from deltalm_ds.weights.source import Source, fixed_fields

MODEL_TYPE = "deltalm"

NAMING = DELTALM_NAMING
"""The modelling file names its parameters as fairseq does; the tied table has the encoder's name alone."""

_FIELDS = {
    "vocab_size": "vocabulary_rows",
    "d_model": "width",
    "encoder_layers": "num_encoder_layers",
    "decoder_blocks": "num_decoder_blocks",
    "decoder_form": "decoder",
    "encoder_attention_heads": "num_heads",
    "encoder_ffn_dim": "feed_forward_width",
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


class ExportedSource(Source):
    """A DeltaLM under the names of our modelling file for transformers."""

    def source_of(self, parameter: str, decoder: DecoderForm) -> str:
        """The same parameter's name there."""
        return NAMING.name_of(parameter)


def sizes_for_transformers(config: DeltaLMConfig) -> dict[str, Any]:
    """The fields of config.json that say what `config` says, and those that follow from it."""
    return {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()} | {
        "decoder_layers": config.num_decoder_layers,
        "decoder_attention_heads": config.num_heads,
        "decoder_ffn_dim": config.feed_forward_width,
    }


def read_exported(folder: Path, content: dict[str, Any]) -> ExportedSource:
    """The DeltaLM in `folder`, whose config.json holds `content`; UserError for a damaged one."""
    path = folder / "config.json"
    lacking = sorted(_FIELDS.keys() - content.keys())
    if lacking:
        raise UserError(f"{path}: lacks {', '.join(lacking)}; take another copy of it")
    try:
        config = DeltaLMConfig.from_dict({ours: content[theirs] for theirs, ours in _FIELDS.items()})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    weights = folder / "model.safetensors"
    return ExportedSource(
        path=folder,
        layout="DeltaLM in Hugging Face's layout",
        tensors=check_tensors(weights, load_safetensors(weights)[0]),
        known=fixed_fields(config),
        suggested=config.to_dict(),
    )
