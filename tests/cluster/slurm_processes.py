"""The processes that a local SLURM has started."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

_SOCKET = re.compile(r"socket:\[(\d+)\]")


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


def processes_of(scratch: Path, node: str | None = None) -> list[psutil.Process]:
    """Everything that the SLURM in `scratch` runs beside its daemons, on one node or on both: slurmstepds,
    told by their sockets, and all whose environment names its configuration."""
    sockets = _stepd_sockets(scratch)
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        environment = _environment(process)
        if environment.get("SLURM_CONF") == str(scratch / "slurm.conf"):
            name = environment.get("SLURMD_NODENAME")
        else:
            name = _node_of_stepd(process, sockets)
            if name is None:
                continue
        if node in (None, name):
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


def is_child_of_stepd(process: psutil.Process) -> bool:
    """Whether SLURM itself started it: the batch script's shell, or a task."""
    with contextlib.suppress(psutil.Error):
        parent = process.parent()
        return parent is not None and parent.name() == "slurmstepd"
    return False


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ()) if process.status() != psutil.STATUS_ZOMBIE else {}
    except (psutil.Error, OSError):
        return {}


def _stepd_sockets(scratch: Path) -> dict[str, str]:
    """Nodes by the inode of the socket that a slurmstepd of theirs listens on, SCRATCH/NODE/NODE_JOB.STEP."""
    sockets = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) == 8 and Path(words[7]).parent.parent == scratch:
            sockets[words[6]] = Path(words[7]).parent.name
    return sockets


def _node_of_stepd(process: psutil.Process, sockets: dict[str, str]) -> str | None:
    """The node of a slurmstepd, which writes its title over its environment."""
    with contextlib.suppress(psutil.Error, OSError):
        if process.name() == "slurmstepd":
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                match = _SOCKET.fullmatch(str(link.readlink()))
                if match and match[1] in sockets:
                    return sockets[match[1]]
    return None
