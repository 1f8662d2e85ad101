"""Hugging Face directories of XLM-R and InfoXLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.weights.names import Naming
from deltalm_ds.weights.safe import check_tensors, load_safetensors, load_torch_file, read_json
from deltalm_ds.weights.xlmr import LM_HEAD, XlmrSource

MODEL_TYPES = ("xlm-roberta", "roberta")
"""`model_type` of the layouts that hold XLM-R's architecture."""

PREFIX = "roberta."
POSITIONS = "embeddings.position_embeddings.weight"
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
_INDEX_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def read_hugging_face(folder: Path, config: dict[str, Any]) -> XlmrSource:
    """The XLM-R encoder in `folder`, whose config.json holds `config`; UserError for another architecture."""
    tensors = _read_tensors(folder)
    prefix = PREFIX if any(name.startswith(PREFIX) for name in tensors) else ""
    left_out = {}
    for name in tensors:
        if name.startswith("lm_head."):
            left_out[name] = LM_HEAD
        elif name.startswith(f"{prefix}pooler."):
            left_out[name] = "XLM-R's pooler, which DeltaLM has not"
        elif name.removeprefix(prefix) in _INDEX_BUFFERS:
            left_out[name] = "a constant of the code"
    token_types = prefix + TOKEN_TYPES
    if token_types in tensors:
        left_out[token_types] = _fold_token_types(folder, tensors, prefix)
    source = XlmrSource(
        path=folder,
        layout="XLM-R in Hugging Face's layout",
        tensors=tensors,
        naming=naming(prefix),
        known=_known(folder, config),
        left_out=left_out,
        remarks=[],
    )
    _check_against_tensors(source, config)
    return source


def _fold_token_types(folder: Path, tensors: dict[str, Tensor], prefix: str) -> str:
    """Add the single token-type row, which every token gets, to every position row; returns what was done."""
    rows = tensors[prefix + TOKEN_TYPES]
    positions = tensors.get(prefix + POSITIONS)
    if positions is None or rows.shape != (1, positions.shape[-1]):
        raise UserError(
            f"{folder}: {prefix}{TOKEN_TYPES} has shape {list(rows.shape)}, not one row as wide as the "
            "positions; only models with a single token type can become a DeltaLM"
        )
    if not rows.any():
        return "zero"
    tensors[prefix + POSITIONS] = positions.to(torch.float32) + rows.to(torch.float32)
    return "added to every position row"


def naming(prefix: str) -> Naming:
    """Transformers' names of our encoder's parameters, `prefix` before each."""
    attention = {name: f"attention.self.{name}" for name in ("query", "key", "value")}
    return Naming(
        modules={
            "embedding": f"{prefix}embeddings.word_embeddings",
            "encoder.positions": f"{prefix}embeddings.position_embeddings",
            "encoder.embedding_norm": f"{prefix}embeddings.LayerNorm",
        },
        layers={"encoder.layers": f"{prefix}encoder.layer"},
        operations={
            "attention": attention
            | {"output": "attention.output.dense", "norm": "attention.output.LayerNorm"},
            "feed_forward": {"fc1": "intermediate.dense", "fc2": "output.dense", "norm": "output.LayerNorm"},
        },
    )


def _known(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What config.json says that the tensors don't show."""
    for name, needed in (("hidden_act", "gelu"), ("pad_token_id", 1)):
        if config.get(name) != needed:
            raise UserError(
                f"{folder / 'config.json'}: {name} is {config.get(name)!r}, and DeltaLM computes with "
                f"{needed!r}; this model can't become a DeltaLM"
            )
    heads, epsilon = config.get("num_attention_heads"), config.get("layer_norm_eps")
    if type(heads) is not int or type(epsilon) is not float:
        raise UserError(
            f"{folder / 'config.json'}: lacks num_attention_heads or layer_norm_eps; take another copy of it"
        )
    return {"num_heads": heads, "layer_norm_epsilon": epsilon}


def _check_against_tensors(source: XlmrSource, config: dict[str, Any]) -> None:
    """A config.json of another model would bring the wrong number of heads."""
    for theirs, ours in (("hidden_size", "width"), ("num_hidden_layers", "num_encoder_layers")):
        if config.get(theirs) != source.known[ours]:
            raise UserError(
                f"{source.path / 'config.json'}: {theirs} is {config.get(theirs)!r}, but the tensors have "
                f"{source.known[ours]}; take config.json and weights from the same model"
            )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return _read_one(folder / name)
        if (folder / f"{name}.index.json").exists():
            return _read_shards(folder / f"{name}.index.json")
    raise UserError(f"{folder}: holds neither model.safetensors nor pytorch_model.bin; download one of them")


def _read_one(path: Path) -> dict[str, Tensor]:
    content = load_safetensors(path)[0] if path.suffix == ".safetensors" else load_torch_file(path)
    return check_tensors(path, content)


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise UserError(f"{index}: lacks weight_map, the file of every tensor; download it again")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise UserError(f"{index}: names {name!r}, which is no file of this folder; download it again")
        tensors |= _read_one(index.parent / name)
    if tensors.keys() != places.keys():
        wrong = sorted(tensors.keys() ^ places.keys())
        raise UserError(f"{index}: does not fit the files beside it ({wrong[0]}); download them again")
    return tensors
