"""Who may write into a folder of checkpoints: the run that has come last, and no other.

A job that SLURM requeues after it has lost a node may still be alive there, and save. Its later incarnation
takes the lease first and then renames away every folder that another one is writing. The earlier one makes
its folder aside, under its own name, then looks at the lease, and commits by renaming that folder: either it
saw the new lease, or its folder was there to be renamed away, or it had committed before the new run looked
for checkpoints. So nothing is lost and nothing is mixed, without a lock that a dead node would keep.

Leases are numbered folders, and the highest is in force. One is taken by renaming a folder to the next
number, which fails where it is there already: of two runs that come at once, one is first, and the other
looks again. Who takes a number that was there and has been cleared away has a lease that is not in force.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from deltalm_ds.errors import UserError
from deltalm_ds.files import fsync_directory, write_text_atomically

LEASE = "lease"
"""The folder of leases: LEASE/NUMBER/holder.json."""
_HOLDER = "holder.json"
_BEING_MADE = ".new"
_LOOKS, _SECONDS_BETWEEN_LOOKS = 20, 0.05

REMOVED = ".removed"
"""Ending of a folder that is being removed."""


@dataclass(frozen=True)
class Holder:
    """One incarnation of a run."""

    job: str
    """The SLURM job, or host, process and start time."""
    restart: int
    """How often SLURM had requeued the job."""
    step: int
    """The step of the job."""
    host: str
    """Where its rank 0 runs."""
    since: str
    """When it took the lease, in UTC."""

    @property
    def name(self) -> str:
        """Part of the names of folders that it is writing."""
        return f"{self.job}-{self.restart}-{self.step}"


def this_process() -> Holder:
    """The incarnation of which this process is rank 0."""
    host, since = socket.gethostname(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if "SLURM_JOB_ID" in os.environ:
        restart, step = (int(os.environ.get(f"SLURM_{name}", "0")) for name in ("RESTART_COUNT", "STEP_ID"))
        return Holder(os.environ["SLURM_JOB_ID"], restart, step, host, since)
    return Holder(f"{host}_{os.getpid()}_{time.time_ns()}", 0, 0, host, since)


@dataclass(frozen=True)
class Lease:
    """The right of one holder to write into a folder."""

    directory: Path
    holder: Holder

    def check(self) -> None:
        """Raises UserError if another has taken it, or the file is gone."""
        _, now = _in_force(self.directory)
        if now != self.holder:
            taker = "nobody" if now is None else f"job {now.job} (restart {now.restart}) on {now.host}"
            raise UserError(
                f"{self.directory} belongs to {taker} now: this run, job {self.holder.job} (restart "
                f"{self.holder.restart}), writes no more; if both are yours, give each its own --output"
            )

    def aside(self, name: str, ending: str) -> Path:
        """Where the holder makes what is to be `name` in the folder."""
        return self.directory / f"{name}.{self.holder.name}{ending}"


def take_lease(directory: Path, holder: Holder) -> tuple[Lease, Holder | None]:
    """Take the folder's lease, and tell who had it before; called by rank 0.

    Raises UserError if a later incarnation of the same job has it.
    """
    leases = directory / LEASE
    while True:
        number, before = _in_force(directory)
        if (
            before is not None
            and before.job == holder.job
            and (before.restart, before.step) > (holder.restart, holder.step)
        ):
            raise UserError(
                f"{directory} belongs to restart {before.restart} of job {holder.job} on {before.host}: "
                f"this is restart {holder.restart}, which must not go on"
            )
        made = leases / (holder.name + _BEING_MADE)
        try:
            made.mkdir(parents=True, exist_ok=True)
            write_text_atomically(made / _HOLDER, json.dumps(asdict(holder)) + "\n")
            made.rename(leases / str(number + 1))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT):
                raise
            continue  # another was faster, and may have cleared away what this one was making
        fsync_directory(leases)
        for earlier in leases.iterdir():
            if not earlier.name.isdigit() or int(earlier.name) <= number:
                remove_folder(earlier)  # or its maker renames it first
        return Lease(directory, holder), before


def remove_folder(folder: Path) -> None:
    """Remove a folder that another process may be about to rename: it goes at once, or not at all."""
    removed = folder.with_name(folder.name + REMOVED)
    shutil.rmtree(removed, ignore_errors=True)
    try:
        folder.rename(removed)
    except FileNotFoundError:
        return
    shutil.rmtree(removed, ignore_errors=True)


def _in_force(directory: Path) -> tuple[int, Holder | None]:
    """The highest lease; number 0 is nobody's."""
    fault: Exception | None = None
    for _ in range(_LOOKS):
        number = _highest(directory)
        if number == 0:
            return 0, None
        path = directory / LEASE / str(number) / _HOLDER
        try:
            return number, Holder(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            fault = error
            if not isinstance(error, FileNotFoundError):
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)  # a later holder is just clearing it away
    raise UserError(f"{path} cannot be read ({fault}): remove {path.parent} if no run is alive")


def _highest(directory: Path) -> int:
    numbers = (path.name for path in (directory / LEASE).glob("*"))
    return max((int(number) for number in numbers if number.isdigit()), default=0)
