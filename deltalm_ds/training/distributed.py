"""Processes and devices: one process a device, whatever launched it."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist

from deltalm_ds.errors import UserError

T = TypeVar("T")

# While rank 0 prepares, hashes or converts, the others wait in a broadcast.
_TIMEOUT = timedelta(hours=1)
# How many processes this host has, as torchrun, deepspeed and mpirun say it.
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")
_UNDER_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Process:
    """This process among all."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Rank 0 prints, logs and writes what is written once."""
        return self.rank == 0


def join_processes() -> Process:
    """Join the group that the launcher made (deepspeed, torchrun, mpirun), or be a group of one."""
    if "RANK" not in os.environ and not any(name in os.environ for name in _UNDER_MPI):
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(_free_port())
    # DeepSpeed 0.19 calls collectives by names that torch 2.13 has deprecated, at every step.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # Its 25 s of compilation serve inference only.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    accelerator = deepspeed.get_accelerator()
    try:
        deepspeed.init_distributed(
            dist_backend=accelerator.communication_backend_name(),
            timeout=_TIMEOUT,
            verbose=False,
        )
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UserError(
            f"port {os.environ['MASTER_PORT']} of this host is taken, perhaps by another run: give the "
            "launcher another one (deepspeed --master_port, torchrun --master-port, or MASTER_PORT)"
        ) from error
    rank, world_size = dist.get_rank(), dist.get_world_size()
    # DeepSpeed's choice, not torch's: DS_ACCELERATOR=cpu keeps its model off a GPU that is there.
    if accelerator.device_name() == "cpu":
        device = torch.device("cpu")
        _share_cores()
    else:
        device = torch.device(accelerator.device_name(), int(os.environ["LOCAL_RANK"]))
        accelerator.set_device(device.index)
    return Process(rank, world_size, device)


def process_store() -> dist.Store:
    """The store by which the processes met, served by rank 0, for a thread: over a connection of its own."""
    return dist.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]


def from_first(value: T) -> T:
    """Rank 0's `value`, on every rank; it must be picklable."""
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def on_first(action: Callable[[], T]) -> T:
    """`action`'s result on rank 0, on every rank; what fails on rank 0 is raised on every rank."""
    result: T | None = None
    failure: Exception | None = None
    if dist.get_rank() == 0:
        try:
            result = action()
        except Exception as error:
            failure = error
    is_mistake = isinstance(failure, UserError)
    message = None if failure is None else str(failure) if is_mistake else f"rank 0 failed: {failure!r}"
    result, message, is_mistake = from_first((result, message, is_mistake))
    if failure is not None:
        raise failure
    if message is not None:
        raise UserError(message) if is_mistake else RuntimeError(message)
    return result  # type: ignore[return-value]


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all ranks, in place."""
    dist.all_reduce(values)
    return values


def _share_cores() -> None:
    """Give each process of this host its share of the cores, unless OMP_NUM_THREADS already decides."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    local = next((int(os.environ[name]) for name in _LOCAL_SIZES if os.environ.get(name)), 1)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
