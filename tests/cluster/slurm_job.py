"""One job of a local SLURM: its state, its processes, its files, and what may be done to it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from slurm_processes import Task, is_child_of_stepd, task_of

if TYPE_CHECKING:
    from local_slurm import LocalSlurm

ENDED = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
)
"""States that a job does not leave, unless it is requeued."""


class Job:
    """A submitted batch job."""

    def __init__(self, cluster: LocalSlurm, number: str) -> None:
        self.cluster = cluster
        self.number = number

    def shown(self) -> dict[str, str]:
        """All that `scontrol show job` says, by name."""
        said = self.cluster.run("scontrol", "--oneliner", "show", "job", self.number).stdout
        return dict(re.findall(r"(\S+?)=(\S*)", said))

    def state(self) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, …"""
        return self.shown()["JobState"]

    def restarts(self) -> int:
        """How often it was requeued."""
        return int(self.shown()["Restarts"])

    def is_active(self) -> bool:
        """Whether it runs or is being ended."""
        return self.state() in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")

    def log(self) -> str:
        """What the batch script has written."""
        path = Path(self.shown()["StdOut"])
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Return when `condition` holds; TimeoutError with the job's state and log otherwise."""
        self.cluster.wait_until(condition, seconds, lambda: f"job {self.number} {self.state()}\n{self.log()}")

    def wait_for(self, *states: str, seconds: float = 120) -> str:
        """Wait until the job is in one of these states, and return it; one that has ended in another state
        is a RuntimeError with its log."""
        end = time.monotonic() + seconds
        while (state := self.state()) not in states:
            if state in ENDED:
                raise RuntimeError(f"job {self.number} is {state}\n{self.log()}")
            if time.monotonic() > end:
                raise TimeoutError(f"job {self.number} is {state} after {seconds} s\n{self.log()}")
            time.sleep(0.1)
        return state

    def wait_for_restart(self, count: int, seconds: float = 120) -> None:
        """Wait until the job runs, requeued `count` times or more."""
        self.wait_until(lambda: self.restarts() >= count and self.state() == "RUNNING", seconds)

    def signal(self, name: str, *options: str) -> None:
        """What `scancel --signal=NAME` does: the signal goes to all tasks of all steps, not to the batch
        script unless options say so (--batch, --full)."""
        self.cluster.run("scancel", f"--signal={name}", *options, self.number)

    def cancel(self) -> None:
        """End the job as its owner would."""
        self.cluster.run("scancel", self.number)

    def requeue(self) -> None:
        """`scontrol requeue`, which ends the job and starts it again."""
        self.cluster.run("scontrol", "requeue", self.number)

    def tasks(self) -> dict[int, psutil.Process]:
        """The processes of the newest step, by rank, without their children; the guard's does not count."""
        found: dict[int, tuple[int, psutil.Process]] = {}
        for process, task in self._processes():
            if task.step is None or task.rank is None or not is_child_of_stepd(process):
                continue
            if "guard.sh" in task.command:
                continue
            if task.rank not in found or found[task.rank][0] < int(task.step):
                found[task.rank] = int(task.step), process
        return {rank: process for rank, (_, process) in sorted(found.items())}

    def kill_rank(self, rank: int) -> None:
        """kill -9 for one task."""
        self.tasks()[rank].kill()

    def kill_all_ranks(self) -> None:
        """kill -9 for all tasks of the newest step."""
        for process in self.tasks().values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def batch_script(self) -> psutil.Process:
        """The shell that runs the batch script."""
        scripts = [
            process
            for process, task in self._processes()
            if task.step is None and is_child_of_stepd(process) and "slurm_script" in task.command
        ]
        (script,) = scripts
        return script

    def kill_batch_script(self) -> None:
        """kill -9 for the batch script's shell alone."""
        self.batch_script().kill()

    def _processes(self) -> list[tuple[psutil.Process, Task]]:
        found = ((process, task_of(process)) for process in self.cluster.processes())
        return [(process, task) for process, task in found if task is not None and task.job == self.number]
