"""Who this process is among all, before any has spoken: from what launchers leave in the environment."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from deltalm_ds.errors import UserError

_MPI_RANKS = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
_STEP_RANKS = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")  # a batch script has the first only
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")
_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
_DEFAULT_PORT = 29500  # torch's and DeepSpeed's
_FIRST_PORT, _NUM_PORTS = 20_000, 9_000  # for a step of SLURM's, which nobody gives a port
_HOST_LIST_PART = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


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
    is_step = "RANK" not in environment and _is_started_by_srun(environment)
    expected: dict[str, int] = {}
    if "RANK" in environment:
        rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    elif is_step:
        rank, world_size = (int(environment[name]) for name in _STEP_RANKS)
        tasks = expand_tasks(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
        expected = dict(zip(nodes, tasks, strict=False))
    elif mpi is not None:
        rank, world_size = (int(environment[name]) for name in mpi)
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
        port=int(environment.get("MASTER_PORT") or (0 if world_size == 1 else _port(environment, is_step))),
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


def expand_hosts(text: str) -> list[str]:
    """The hosts of SLURM's short form: "n[1-2,07],m" is n1, n2, n07, m."""
    hosts = []
    for part in _HOST_LIST_PART.findall(text):
        expanded = [""]
        for literal, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", part):
            pieces = [literal] if literal else [piece for item in ranges.split(",") for piece in _range(item)]
            expanded = [head + piece for head in expanded for piece in pieces]
        hosts += expanded
    return hosts


def expand_tasks(text: str) -> list[int]:
    """Tasks by node of SLURM's short form: "8(x2),4" is 8, 8, 4."""
    return [int(count) for count, times in _TASKS.findall(text) for _ in range(int(times or 1))]


def _is_started_by_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun started this rank, and not a helper of mpirun's, whose ranks then have MPI's numbers.

    `srun --mpi=pmi2` gives both, and the same.
    """
    if any(name not in environment for name in _STEP_RANKS):
        return False
    mpi = [environment[name] for names in _MPI_RANKS for name in names if name in environment]
    return not mpi or mpi == [environment[name] for name in _STEP_RANKS]


def _port(environment: Mapping[str, str], is_step: bool) -> int:
    """The same on all ranks, and in a job of SLURM's another one than neighbours and later steps have."""
    if "SLURM_JOB_ID" not in environment:
        return _DEFAULT_PORT
    # Under mpirun, only some ranks are in a step.
    step = int(environment["SLURM_STEP_ID"]) if is_step else 0
    return _FIRST_PORT + (16 * int(environment["SLURM_JOB_ID"]) + step) % _NUM_PORTS


def _range(text: str) -> list[str]:
    first, _, last = text.partition("-")
    if not last:
        return [first]
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _first_number(environment: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(environment[name]) for name in names if environment.get(name)), None)
