"""The processes that a local SLURM has started, told by their environment."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Task:
    """What a process of a job belongs to."""

    job: str
    """Job number."""
    restarts: int
    """Which start of the job: 0 for the first."""
    step: str | None
    """Number of the srun step; None in the batch script."""
    rank: int | None
    """Number of the task among those of the step; None in the batch script."""
    node: str
    command: str


def processes_of(configuration: Path, node: str | None = None) -> list[psutil.Process]:
    """Processes whose environment names this SLURM, those of one node or of all."""
    found = []
    for process in psutil.process_iter():
        environment = _environment(process)
        if environment.get("SLURM_CONF") != str(configuration):
            continue
        if node is None or node in (environment.get("SLURMD_NODENAME"), environment.get("LOCAL_SLURM_NODE")):
            found.append(process)
    return found


def task_of(process: psutil.Process) -> Task | None:
    """What the process belongs to; None for one that is of no job, or gone."""
    environment = _environment(process)
    if "SLURM_JOB_ID" not in environment or "SLURMD_NODENAME" not in environment:
        return None
    step = environment.get("SLURM_STEP_ID")
    with contextlib.suppress(psutil.Error):
        return Task(
            job=environment["SLURM_JOB_ID"],
            restarts=int(environment.get("SLURM_RESTART_COUNT", "0")),
            step=step,
            rank=None if step is None else int(environment["SLURM_PROCID"]),
            node=environment["SLURMD_NODENAME"],
            command=" ".join(process.cmdline()),
        )
    return None


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ()) if process.status() != psutil.STATUS_ZOMBIE else {}
    except (psutil.Error, OSError):
        return {}
