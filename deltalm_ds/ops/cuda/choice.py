"""Whether an operation runs by its GPU kernel or by its torch reference.

The environment variable DELTALM_KERNELS decides for operations by name, for instance
"attention=reference,gelu=kernel", or for all of them by "reference" or "kernel"; a kernel that is demanded
and cannot run is an error. Without it, an operation runs by its kernel on GPUs where that was measured to be
as fast as torch at least: measured.json, which `make gpu` writes, has GPU names and how many times as fast
each kernel was.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, get_args

import torch

from deltalm_ds.errors import UserError
from deltalm_ds.ops.cuda import operations

Operation = Literal["attention", "add_norm", "gelu", "cross_entropy", "adam"]
Way = Literal["kernel", "reference"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

VARIABLE = "DELTALM_KERNELS"
MEASURED = Path(__file__).with_name("measured.json")

_choices: dict[tuple[str, str], bool] = {}


def by_kernel(operation: Operation, device_type: str) -> bool:
    """Whether `operation` is to run by its kernel on such a device; decided once."""
    if (operation, device_type) not in _choices:
        choose_kernels(device_type)
    return _choices[operation, device_type]


def choose_kernels(device_type: str) -> None:
    """Decide for all operations on a device type: before torch.compile, which cannot trace the decision."""
    demanded = demands(os.environ.get(VARIABLE, ""))
    measured = _measured(device_type)
    for operation in OPERATIONS:
        default = "kernel" if measured.get(operation, 0.0) >= 1 else "reference"
        way = demanded.get(operation, default)
        chosen = way == "kernel" and operations.has_kernels(device_type)
        if operation in demanded and way == "kernel" and device_type == "cuda" and not chosen:
            raise UserError(f"{VARIABLE} demands the kernel for {operation}, and there are no kernels here")
        _choices[operation, device_type] = chosen


def description(device_type: str) -> str:
    """What runs by kernels and what by torch, in words."""
    ways = {
        way: [name for name in OPERATIONS if by_kernel(name, device_type) == way] for way in (True, False)
    }
    words = [
        f"{', '.join(names)} by {'our kernels' if way else 'torch'}" for way, names in ways.items() if names
    ]
    if device_type == "cuda" and not _measured(device_type):
        words.append(f"nothing was measured on this GPU: `make gpu` does, {VARIABLE}=kernel tries without")
    return "; ".join(words)


def demands(text: str) -> dict[Operation, Way]:
    """What DELTALM_KERNELS says, by operation; UserError for anything else than it may say."""
    found: dict[Operation, Way] = {}
    for part in filter(None, text.split(",")):
        name, equals, way = part.rpartition("=")
        if way not in get_args(Way) or (equals and name not in OPERATIONS):
            raise UserError(
                f'{VARIABLE} is {text!r}: give "kernel" or "reference", or a list of OPERATION=kernel and '
                f"OPERATION=reference, of {', '.join(OPERATIONS)}"
            )
        for operation in OPERATIONS if not equals else (name,):
            found[operation] = way  # type: ignore[index, assignment]
    return found


def _measured(device_type: str) -> dict[str, float]:
    """How many times as fast as torch the kernels were on this GPU, by operation; nothing if never run."""
    if device_type != "cuda":
        return {}
    return json.loads(MEASURED.read_text(encoding="utf-8")).get(torch.cuda.get_device_name(), {})
