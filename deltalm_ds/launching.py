"""What launched this process: how torchrun, deepspeed, mpirun and srun tell it that it is one of many."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Launcher = Literal["torch", "mpi", "srun", "none"]
"""torch: torchrun or deepspeed, which set RANK and its like; mpi: mpirun; srun: a step of SLURM; none: this
process is by itself."""

_MPIRUN = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_MPI = (*_MPIRUN, "PMI_SIZE", "PMIX_RANK")
# Below those that systems lend to outgoing connections.
_SRUN_PORTS = range(10_000, 30_000)
_HOST_LIST_PART = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def launcher_of(environment: Mapping[str, str]) -> Launcher:
    """Who made the group of processes that the one with this environment is of."""
    if "RANK" in environment:
        return "torch"
    # mpirun within a job starts its helpers by srun, so its ranks have variables of a step, and wrong ones.
    if any(name in environment for name in _MPIRUN):
        return "mpi"
    task = srun_task(environment)
    if task is not None:
        # PMI's numbers come from `srun --mpi=pmi2`, which are srun's own, or from MPICH's mpirun.
        count, rank = environment.get("PMI_SIZE", task.count), environment.get("PMI_RANK", task.rank)
        return "srun" if (int(count), int(rank)) == (task.count, task.rank) else "mpi"
    return "mpi" if any(name in environment for name in _MPI) else "none"


def has_mpi(environment: Mapping[str, str]) -> bool:
    """Whether an MPI library will find others: under mpirun, or srun with one of its MPI plugins."""
    return any(name in environment for name in _MPI)


@dataclass(frozen=True)
class SrunTask:
    """A process that srun started, among the others of its step."""

    rank: int
    count: int
    rank_on_node: int
    tasks_by_node: Mapping[str, int]
    """Tasks of the step by the name of the node, in its order."""
    node: str
    job: int
    restarts: int
    """How often the job was requeued."""
    step: int

    @property
    def port(self) -> int:
        """Where its ranks may meet; neighbours, other restarts and other steps have other ports."""
        return port_in_job(self.job, self.restarts, self.step)


def srun_task(environment: Mapping[str, str]) -> SrunTask | None:
    """The task that has this environment, or None for one that is none.

    A batch script, and what it starts itself, have SLURM_PROCID=0 and SLURM_NTASKS of the job, but no step.
    """
    if "SLURM_STEP_ID" not in environment or "SLURM_PROCID" not in environment:
        return None
    hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
    counts = expand_tasks(environment["SLURM_STEP_TASKS_PER_NODE"])
    return SrunTask(
        rank=int(environment["SLURM_PROCID"]),
        count=int(environment["SLURM_STEP_NUM_TASKS"]),
        rank_on_node=int(environment["SLURM_LOCALID"]),
        tasks_by_node=dict(zip(hosts, counts, strict=True)),
        node=hosts[int(environment["SLURM_NODEID"])],
        job=int(environment["SLURM_JOB_ID"]),
        restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
        step=int(environment["SLURM_STEP_ID"]),
    )


def port_in_job(job: int, restarts: int, step: int) -> int:
    """A port for ranks to meet at, from the numbers of their step alone."""
    return _SRUN_PORTS[(101 * job + 11 * restarts + step) % len(_SRUN_PORTS)]


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


def _range(text: str) -> list[str]:
    first, _, last = text.partition("-")
    if not last:
        return [first]
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
