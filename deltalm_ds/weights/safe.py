"""Reading weight files without ever running code from them."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import safe_open
from torch import Tensor

from deltalm_ds.errors import UserError

INERT_TYPES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
"""What a torch file may hold beside tensors and plain containers.

fairseq keeps its options in a Namespace: a bare record whose construction only sets attributes. Nothing else
is needed to read published files. omegaconf's types run resolvers when read, and NumPy's trust a pickled
dtype, so both stay out.
"""

_ZIP_MAGIC = b"PK\x03\x04"
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def load_torch_file(path: Path) -> Any:
    """What `torch.save` put into `path`, with tensors on the CPU, mapped from the file where it can be.

    UserError for a file that is missing, truncated, not a torch file, or that names any type or function
    other than tensors, plain containers and `INERT_TYPES`.
    """
    try:
        with path.open("rb") as file:
            # Files from before torch 1.6, published XLM-R among them, are no archives and can't be mapped.
            is_archive = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        with torch.serialization.safe_globals(INERT_TYPES):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes torch's reader fail in any way
        found = _GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if found is None:
            raise UserError(
                f"{path}: not a whole torch file of tensors ({_reason(error)}); it may be truncated or of "
                "another kind, copy or download it again"
            ) from error
        raise UserError(
            f"{path}: refused, because reading it whole would run code that the file names ({found[1]}); "
            "only tensors and plain values are read. Where you trust it, save a copy of nothing but its "
            "tensors, for a fairseq file torch.save({'model': state['model']}, NEW_FILE)"
        ) from error


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a .safetensors file, on the CPU, and its metadata; UserError for a damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); it may be truncated, copy or download it again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; UserError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); take another copy of it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; take another copy of it")
    return content


def check_tensors(path: Path, tensors: Any) -> dict[str, Tensor]:
    """`tensors` as a dict of plain tensors by name; UserError for anything else."""
    if not isinstance(tensors, dict):
        raise UserError(f"{path}: expected tensors by name, found {type(tensors).__name__}")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{path}: expected tensors by name, found {type(tensor).__name__} under {name!r}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise UserError(f"{path}: {name} is not a plain dense tensor; save it as one")
        # A view can claim any shape over a few bytes; copying it would fill the memory.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} {list(tensor.shape)} has fewer bytes than its shape needs")
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _reason(error: Exception) -> str:
    """The first sentence of torch's message, without its advice to read the file unsafely."""
    message = str(error).rpartition("WeightsUnpickler error: ")[2]
    return message.split("\n", 1)[0].split(". ", 1)[0] or type(error).__name__
