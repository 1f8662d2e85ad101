"""Who this process is among all, before any has spoken: from what launchers leave in the environment."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from deltalm_ds.errors import UserError
from deltalm_ds.launching import expand_hosts, launcher_of, port_in_job, srun_task

_MPI_RANKS = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")
_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
_DEFAULT_PORT = 29500  # torch's and DeepSpeed's


@dataclass(frozen=True, kw_only=True)
class Launch:
    """This process's place, and where all meet."""

    rank: int
    world_size: int
    local_rank: int | None
    """Its number on its node, where the launcher says it."""
    node: str
    """As SLURM knows it, else the host's name."""
    address: str
    """Host of rank 0."""
    port: int
    """Where the ranks meet; 0: any."""
    is_store_there: bool = False
    """Whether the launcher itself answers there (torchrun), and not rank 0."""
    expected: Mapping[str, int]
    """Ranks by node, as far as that is known beforehand."""
    local_size: int | None
    """Ranks of this node, where the launcher says it."""


def find_launch(environment: Mapping[str, str]) -> Launch:
    """Read the environment that torchrun, deepspeed, mpirun or srun made; without one of them, be alone.

    UserError where a launcher names ranks on several hosts and nothing names the first of them.
    """
    nodes = expand_hosts(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", ""))
    local_size = _first_number(environment, _LOCAL_SIZES)
    mpi = next((names for names in _MPI_RANKS if names[0] in environment), None)
    launcher, port = launcher_of(environment), _DEFAULT_PORT
    expected: Mapping[str, int] = {}
    if launcher == "torch":
        rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    elif launcher == "srun" and (task := srun_task(environment)) is not None:
        rank, world_size, expected, port = task.rank, task.count, task.tasks_by_node, task.port
    elif launcher == "mpi" and mpi is not None:
        rank, world_size = (int(environment[name]) for name in mpi)
        if "SLURM_JOB_ID" in environment:
            port = port_in_job(int(environment["SLURM_JOB_ID"]), 0, 0)  # only some ranks are in a step
    else:
        rank, world_size, local_size = 0, 1, 1
    if local_size and not expected and len(nodes) * local_size == world_size:
        expected = dict.fromkeys(nodes, local_size)
    is_local = world_size == 1 or local_size == world_size
    address = environment.get("MASTER_ADDR") or ("127.0.0.1" if is_local else next(iter(nodes), None))
    if address is None:
        raise UserError(
            f"{world_size} ranks were started and none knows where rank 0 is: set MASTER_ADDR to its host "
            "(mpirun -x MASTER_ADDR=HOST)"
        )
    return Launch(
        rank=rank,
        world_size=world_size,
        local_rank=_first_number(environment, _LOCAL_RANKS),
        node=environment.get("SLURMD_NODENAME") or socket.gethostname(),
        address=address,
        port=int(environment.get("MASTER_PORT") or (0 if world_size == 1 else port)),
        is_store_there=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        expected=expected,
        local_size=local_size,
    )


def nodes_lacking_ranks(launch: Launch, arrived: Mapping[int, str]) -> list[str]:
    """The nodes that have fewer ranks among `arrived` (node by rank) than they should."""
    expected = dict(launch.expected)
    if not expected and launch.local_size:
        expected = dict.fromkeys(sorted(set(arrived.values())), launch.local_size)
    present = Counter(arrived.values())
    return [node for node, count in expected.items() if present[node] < count]


def _first_number(environment: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(environment[name]) for name in names if environment.get(name)), None)
