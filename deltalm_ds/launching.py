"""What launched this process: how torchrun, deepspeed, mpirun and srun tell it that it is one of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Launcher = Literal["torch", "mpi", "srun", "none"]
"""torch: torchrun or deepspeed, which set RANK and its like; mpi: mpirun; srun: a step of SLURM; none: this
process is by itself."""

_MPIRUN = ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_MPI = (*_MPIRUN, "PMI_SIZE", "PMIX_RANK")


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
    count_on_node: int
    nodes: str
    """The step's nodes, in SLURM's form: n[1-8]."""
    job: int
    restarts: int
    """How often the job was requeued."""
    step: int


def srun_task(environment: Mapping[str, str]) -> SrunTask | None:
    """The task that has this environment, or None for one that is none.

    A batch script, and what it starts itself, have SLURM_PROCID=0 and SLURM_NTASKS of the job, but no step.
    """
    if "SLURM_STEP_ID" not in environment or "SLURM_PROCID" not in environment:
        return None
    counts = _tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"])
    return SrunTask(
        rank=int(environment["SLURM_PROCID"]),
        count=int(environment["SLURM_STEP_NUM_TASKS"]),
        rank_on_node=int(environment["SLURM_LOCALID"]),
        count_on_node=counts[int(environment["SLURM_NODEID"])],
        nodes=environment["SLURM_STEP_NODELIST"],
        job=int(environment["SLURM_JOB_ID"]),
        restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
        step=int(environment["SLURM_STEP_ID"]),
    )


def _tasks_per_node(counts: str) -> list[int]:
    """SLURM's "2(x3),1" as [2, 2, 2, 1]."""
    tasks = []
    for part in counts.split(","):
        count, _, nodes = part.rstrip(")").partition("(x")
        tasks += [int(count)] * int(nodes or 1)
    return tasks
