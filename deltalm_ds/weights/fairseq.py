"""fairseq files: XLM-R encoders, and DeltaLM models fine-tuned with the authors' code."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.weights.interleaved import InterleavedSource
from deltalm_ds.weights.names import Naming
from deltalm_ds.weights.xlmr import LM_HEAD, XlmrSource

XLMR_PREFIXES = ("decoder.sentence_encoder.", "encoder.sentence_encoder.")

_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
_LM_HEAD = re.compile(r"(encoder|decoder)\.lm_head\..*")
_LEFTOVER = re.compile(r"(.*\.)?(version|_float_tensor)")
_STACKED = re.compile(r"(.*\.)in_proj_(weight|bias)")

FIXED_OPTIONS = {"activation_fn": "gelu", "no_scale_embedding": True}
"""Options that change what a model computes → the one value that XLM-R and DeltaLM have."""


def _attention(module: str) -> dict[str, str]:
    return {ours: f"{module}.{theirs}" for ours, theirs in _ATTENTION.items()} | {
        "norm": f"{module}_layer_norm"
    }


_SECOND_FEED_FORWARD = {"fc1": "fc1", "fc2": "fc2", "norm": "final_layer_norm"}

DELTALM_NAMING = Naming(
    modules={
        "embedding": "encoder.embed_tokens",
        "encoder.positions": "encoder.embed_positions",
        "decoder.positions": "decoder.embed_positions",
        "encoder.embedding_norm": "encoder.layernorm_embedding",
        "decoder.embedding_norm": "decoder.layernorm_embedding",
        "encoder.final_norm": "encoder.layer_norm",
        "decoder.final_norm": "decoder.layer_norm",
    },
    layers={"encoder.layers": "encoder.layers", "decoder.blocks": "decoder.layers"},
    operations={
        "attention": _attention("self_attn"),
        "feed_forward": _SECOND_FEED_FORWARD,
        "self_attention": _attention("self_attn"),
        "first_feed_forward": {"fc1": "fc3", "fc2": "fc4", "norm": "ffn_layer_norm"},
        "cross_attention": _attention("encoder_attn"),
        "second_feed_forward": _SECOND_FEED_FORWARD,
    },
)
"""fairseq's name of each of our parameters; fc3 and fc4 are the feed-forward layer that runs first."""

TABLE_COPIES = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
"""Names under which the file repeats the tied token table."""


def read_fairseq_xlmr(path: Path, state: Mapping[str, Any], tensors: dict[str, Tensor]) -> XlmrSource:
    """The XLM-R encoder in the file's `state`, whose `model` holds `tensors`."""
    prefix = next(prefix for prefix in XLMR_PREFIXES if any(name.startswith(prefix) for name in tensors))
    tensors, remarks = _unstack(path, tensors)
    norm = "emb_layer_norm" if f"{prefix}emb_layer_norm.weight" in tensors else "layernorm_embedding"
    naming = Naming(
        modules={
            "embedding": f"{prefix}embed_tokens",
            "encoder.positions": f"{prefix}embed_positions",
            "encoder.embedding_norm": f"{prefix}{norm}",
        },
        layers={"encoder.layers": f"{prefix}layers"},
        operations={
            "attention": _attention("self_attn"),
            "feed_forward": {"fc1": "fc1", "fc2": "fc2", "norm": "final_layer_norm"},
        },
    )
    return XlmrSource(
        path=path,
        layout="XLM-R in fairseq's layout",
        tensors=tensors,
        naming=naming,
        known={"layer_norm_epsilon": 1e-5, **_known(path, state, ("encoder",))},
        left_out=_leftovers(tensors) | {name: LM_HEAD for name in tensors if _LM_HEAD.fullmatch(name)},
        remarks=remarks,
    )


def read_fairseq_deltalm(
    path: Path, state: Mapping[str, Any], tensors: dict[str, Tensor]
) -> InterleavedSource:
    """The DeltaLM in the file's `state`, whose `model` holds `tensors`."""
    return InterleavedSource(
        path=path,
        layout="DeltaLM in fairseq's layout",
        tensors=tensors,
        naming=DELTALM_NAMING,
        known=_known(path, state, ("encoder", "decoder")),
        left_out=_leftovers(tensors),
        table_copies=TABLE_COPIES,
    )


def _leftovers(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: "fairseq's bookkeeping" for name in tensors if _LEFTOVER.fullmatch(name)}


def _unstack(path: Path, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Old files' `in_proj` [3 × width, …] as query, key and value, and what to report."""
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = _STACKED.fullmatch(name)
        if found is None or f"{found[1]}q_proj.{found[2]}" in tensors:
            separate[name] = tensor
            continue
        if tensor.ndim == 0 or len(tensor) % 3:
            raise UserError(f"{path}: {name} {list(tensor.shape)} is no stack of query, key and value")
        for operation, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            separate[f"{found[1]}{_ATTENTION[operation]}.{found[2]}"] = part
    if len(separate) == len(tensors):
        return tensors, []
    return separate, ["each in_proj was split into q_proj, k_proj and v_proj"]


def _known(path: Path, state: Mapping[str, Any], sides: tuple[str, ...]) -> dict[str, Any]:
    """What the training options in the file say that the tensors don't show; {} for a file without them."""
    options = _options(state)
    for name, needed in FIXED_OPTIONS.items():
        if options.get(name, needed) != needed:
            raise UserError(
                f"{path}: was trained with {name} {options[name]!r}, and DeltaLM computes with {needed!r}; "
                "this model can't become a DeltaLM"
            )
    heads = {options[name] for side in sides if (name := f"{side}_attention_heads") in options}
    if len(heads) > 1:
        raise UserError(f"{path}: encoder and decoder have {sorted(heads)} heads; DeltaLM has one number")
    return {"num_heads": heads.pop()} if heads else {}


def _options(state: Mapping[str, Any]) -> dict[str, Any]:
    """The model's training options: `args` of older fairseq versions, `cfg["model"]` of newer ones."""
    options = state.get("args")
    configuration = state.get("cfg")
    if options is None and isinstance(configuration, dict):
        options = configuration.get("model")
    if isinstance(options, argparse.Namespace):
        return vars(options)
    return options if isinstance(options, dict) else {}
