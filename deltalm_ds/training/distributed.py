"""Processes and devices: one process a device, whatever launched it."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist

from deltalm_ds.errors import UserError
from deltalm_ds.following import follow_launcher
from deltalm_ds.launching import SrunTask, launcher_of, srun_task

T = TypeVar("T")

# While rank 0 prepares, hashes or converts, the others wait in a broadcast.
_TIMEOUT = timedelta(hours=1)
# How many processes this host has, as torchrun, deepspeed and mpirun say it.
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")


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
    """Join the group that the launcher made (deepspeed, torchrun, mpirun, srun), or be a group of one.

    This process ends when its launcher does. Under srun the ranks meet at MASTER_ADDR, by default the first
    node of the step, and MASTER_PORT, by default a number made from the job's; under mpirun at MASTER_PORT of
    rank 0's host, by default one that is free.
    """
    launcher = launcher_of(os.environ)
    task = srun_task(os.environ) if launcher == "srun" else None
    if launcher != "none":
        follow_launcher()
    if task is not None:
        os.environ.update(_variables_of(task, os.environ))
    elif launcher == "none":
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
            **({"distributed_port": _port_of_mpi()} if launcher == "mpi" else {}),
        )
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error) or task is not None:  # a requeued job will have another port
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
        if task is not None and accelerator.device_count() == 1:  # SLURM may show each task its own GPU only
            os.environ["LOCAL_RANK"] = "0"
        device = torch.device(accelerator.device_name(), int(os.environ["LOCAL_RANK"]))
        accelerator.set_device(device.index)
    return Process(rank, world_size, device)


def _variables_of(task: SrunTask, environment: Mapping[str, str]) -> dict[str, str]:
    """What torch and DeepSpeed read, for a task of srun."""
    return {
        "RANK": str(task.rank),
        "LOCAL_RANK": str(task.rank_on_node),
        "WORLD_SIZE": str(task.count),
        "LOCAL_WORLD_SIZE": str(task.tasks_by_node[task.node]),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or next(iter(task.tasks_by_node)),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(task.port),
    }


def _port_of_mpi() -> int:
    """The same on all ranks, for DeepSpeed would take one number for all runs."""
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.bcast(os.environ.get("MASTER_PORT") or _free_port()))


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
    if "SLURM_CPUS_PER_TASK" in os.environ:  # srun has dealt them out
        torch.set_num_threads(min(int(os.environ["SLURM_CPUS_PER_TASK"]), len(os.sched_getaffinity(0))))
        return
    local = next((int(os.environ[name]) for name in _LOCAL_SIZES if os.environ.get(name)), 1)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
