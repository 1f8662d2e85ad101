"""Files that the published code reads: the released layout and fairseq's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.exporting.model import ExportModel
from deltalm_ds.files import atomic_writer
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.weights import fairseq, released
from deltalm_ds.weights.names import Naming
from deltalm_ds.weights.source import TOKEN_TABLE

_EPSILON = 1e-5  # the published code's own, which no file says
_FAIRSEQ_VERSION = 3.0  # of fairseq's encoders and decoders; lower ones lose their last LayerNorm


def write_released(model: ExportModel, path: Path) -> None:
    """Write `{"weights": {...}}`, the layout of the authors' released files, to the file `path`.

    UserError for a model that this layout cannot hold.
    """
    _write({"weights": _renamed(model, released.NAMING, released.TABLE_COPIES)}, path)


def write_fairseq(model: ExportModel, path: Path) -> None:
    """Write a checkpoint as fairseq saves after fine-tuning, options included, to the file `path`.

    UserError for a model that this layout cannot hold.
    """
    tensors = _renamed(model, fairseq.DELTALM_NAMING, fairseq.TABLE_COPIES)
    for side in ("encoder", "decoder"):
        tensors[f"{side}.version"] = torch.tensor([_FAIRSEQ_VERSION])
    _write(
        {
            "args": _options(model.config),
            "cfg": None,
            "model": tensors,
            "optimizer_history": [
                {
                    "criterion_name": "LabelSmoothedCrossEntropyCriterion",
                    "optimizer_name": "FairseqAdam",
                    "lr_scheduler_state": {"best": None},
                    "num_updates": 0,
                }
            ],
            "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "val_loss": None},
            "last_optimizer_state": None,
        },
        path,
    )


def _renamed(model: ExportModel, naming: Naming, table_copies: tuple[str, ...]) -> dict[str, Tensor]:
    if model.config.layer_norm_epsilon != _EPSILON:
        raise UserError(
            f"the model adds {model.config.layer_norm_epsilon} in its LayerNorms and the published code "
            f"{_EPSILON}: take --to native, huggingface or ctranslate2"
        )
    if model.config.decoder != "interleaved":
        raise UserError(
            f"the published code has no {model.config.decoder} decoder: take --to native, huggingface or "
            "ctranslate2"
        )
    tensors = {naming.name_of(name): tensor.contiguous() for name, tensor in model.weights.items()}
    # One tensor under several names is stored once.
    return tensors | dict.fromkeys(table_copies, tensors[naming.name_of(TOKEN_TABLE)])


def _options(config: DeltaLMConfig) -> argparse.Namespace:
    """What the published code is to build the model from."""
    sides: dict[str, Any] = {}
    for side, num_layers in (("encoder", config.num_encoder_layers), ("decoder", config.num_decoder_blocks)):
        sides |= {
            f"{side}_embed_dim": config.width,
            f"{side}_ffn_embed_dim": config.feed_forward_width,
            f"{side}_layers": num_layers,
            f"{side}_attention_heads": config.num_heads,
            f"{side}_normalize_before": config.pre_layer_norm,
            f"{side}_learned_pos": True,
        }
    return argparse.Namespace(
        arch="deltalm_base",
        task="translation",
        **sides,
        **fairseq.FIXED_OPTIONS,
        share_all_embeddings=True,
        layernorm_embedding=config.embedding_layer_norm,
        max_source_positions=config.max_positions,
        max_target_positions=config.max_positions,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
    )


def _write(state: dict[str, Any], path: Path) -> None:
    with atomic_writer(path) as file:
        torch.save(state, file)
