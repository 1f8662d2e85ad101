"""Every collective that a process calls through torch.distributed, counted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from deltalm_ds.planning.communication import Collective, Operation

# By torch's name: ours, and the argument that has all that is reduced or gathered.
_COUNTED: dict[str, tuple[Operation, str]] = {
    "all_reduce": ("all_reduce", "tensor"),
    "reduce": ("reduce", "tensor"),
    "reduce_scatter_tensor": ("reduce_scatter", "input"),
    "all_gather_into_tensor": ("all_gather", "output_tensor"),
    "all_gather": ("all_gather", "tensor_list"),
}


def count_collectives() -> list[Collective]:
    """From now on record collectives in the list that is returned.

    Call it before joining the others: DeepSpeed keeps some of torch's functions when its backend starts.
    """
    calls: list[Collective] = []
    for name, (operation, argument) in _COUNTED.items():
        setattr(dist, name, _counting(getattr(dist, name), operation, argument, calls))
    return calls


def _counting(
    function: Callable[..., Any], operation: Operation, argument: str, calls: list[Collective]
) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def counting(*args: Any, **kwargs: Any) -> Any:
        found = signature.bind(*args, **kwargs).arguments[argument]
        tensors = found if isinstance(found, (list, tuple)) else [found]
        calls.append(Collective(operation, "update", sum(tensor.nbytes for tensor in tensors)))
        return function(*args, **kwargs)

    return counting
