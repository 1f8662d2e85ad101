"""Recognising what kind of checkpoint a path holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deltalm_ds.errors import UserError
from deltalm_ds.weights.exported import MODEL_TYPE, read_exported
from deltalm_ds.weights.fairseq import XLMR_PREFIXES, read_fairseq_deltalm, read_fairseq_xlmr
from deltalm_ds.weights.huggingface import MODEL_TYPES, read_hugging_face
from deltalm_ds.weights.own import CONFIG_FILE, FORMAT, read_own
from deltalm_ds.weights.released import read_released
from deltalm_ds.weights.safe import check_tensors, load_torch_file, read_json
from deltalm_ds.weights.source import Source

_KNOWN = (
    "give a model folder of deltalm-ds, a Hugging Face folder of DeltaLM, XLM-R or InfoXLM, a fairseq file "
    "of one of them, or a released or fine-tuned DeltaLM file"
)


def read_source(path: Path) -> Source:
    """The checkpoint at `path`, its layout told from its contents; UserError for any other."""
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; {_KNOWN}")
    if path.suffix in (".safetensors", ".json"):
        raise UserError(f"{path}: one file of a model folder; give the folder, {path.parent}")
    return _read_file(path)


def _read_folder(folder: Path) -> Source:
    if not (folder / CONFIG_FILE).exists():
        raise UserError(f"{folder}: a folder without {CONFIG_FILE}; {_KNOWN}")
    config = read_json(folder / CONFIG_FILE)
    if config.get("format") == FORMAT:
        return read_own(folder, config)
    if config.get("model_type") in MODEL_TYPES:
        return read_hugging_face(folder, config)
    if config.get("model_type") == MODEL_TYPE:
        return read_exported(folder, config)
    raise UserError(f"{folder}: holds a model of type {config.get('model_type', 'unknown')}; {_KNOWN}")


def _read_file(path: Path) -> Source:
    state: Any = load_torch_file(path)
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}, no checkpoint; {_KNOWN}")
    if "weights" in state:
        return read_released(path, check_tensors(path, state["weights"]))
    if "model" not in state:
        raise UserError(f"{path}: has neither 'model' nor 'weights' at its top; {_KNOWN}")
    tensors = check_tensors(path, state["model"])
    if any(name.startswith(XLMR_PREFIXES) for name in tensors):
        return read_fairseq_xlmr(path, state, tensors)
    if any(".fc3." in name for name in tensors):
        return read_fairseq_deltalm(path, state, tensors)
    raise UserError(f"{path}: a fairseq model, but neither XLM-R nor DeltaLM (no fc3); {_KNOWN}")
