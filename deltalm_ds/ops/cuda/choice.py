"""Whether an operation runs by its GPU kernel or by its torch reference.

The environment variable DELTALM_KERNELS decides for operations by name, for instance
"attention=reference,gelu=kernel", or for all of them by "reference" or "kernel"; a kernel that is demanded
and cannot run is an error. Without it everything runs by torch, as long as no kernel was measured on a GPU.
"""

from __future__ import annotations

import logging
import os
from typing import Literal, get_args

from deltalm_ds.errors import UserError
from deltalm_ds.ops.cuda import operations
from deltalm_ds.ops.cuda.kernels import Kernels
from deltalm_ds.ops.cuda.library import library

Operation = Literal["attention", "add_norm", "gelu", "cross_entropy", "adam"]
Way = Literal["kernel", "reference"]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)

VARIABLE = "DELTALM_KERNELS"
_DEFAULT: Way = "reference"

_log = logging.getLogger(__name__)


_choices: dict[tuple[str, str], bool] = {}


def by_kernel(operation: Operation, device_type: str) -> bool:
    """Whether `operation` is to run by its kernel on such a device; decided, and logged, once."""
    if (operation, device_type) not in _choices:
        choose_kernels(device_type)
    return _choices[operation, device_type]


def choose_kernels(device_type: str) -> None:
    """Decide for all operations on a device type: before torch.compile, which cannot trace the decision."""
    demanded = demands(os.environ.get(VARIABLE, ""))
    for operation in OPERATIONS:
        way = demanded.get(operation, _DEFAULT)
        chosen = way == "kernel" and _has_kernels(device_type)
        if way == "kernel" and device_type == "cuda" and not chosen:
            raise UserError(f"{VARIABLE} demands the kernel for {operation}, and there are no kernels here")
        if device_type == "cuda":
            _log.info("%s on GPUs runs by %s", operation, "its kernel" if chosen else "torch")
        _choices[operation, device_type] = chosen


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


def _has_kernels(device_type: str) -> bool:
    if device_type == "cuda" and not operations.has_kernels("cuda"):
        loaded = library()
        if loaded is not None:
            operations.use(Kernels(loaded))
    return operations.has_kernels(device_type)
