"""The folder beside the output in which all work is done: this command's alone, kept after an error."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deltalm_ds.errors import UserError
from deltalm_ds.preparing.stages import DONE
from deltalm_ds.ranks import Ranks

_SECONDS_FOR_LOCK = 3.0  # the ranks of a run whose launcher was killed take a moment to end


def work_folder(output: Path) -> Path:
    """Where the work on a prepared folder is kept until it is finished."""
    output = output.resolve()
    return output.with_name(f".{output.name}.work")


def kept(output: Path) -> str:
    """What is left of an unfinished run, for its error message."""
    work = work_folder(output)
    if work.exists():
        return f"what is done is kept in {work}: the same command goes on from there"
    return "nothing was written"


@contextlib.contextmanager
def worked_in(output: Path, ranks: Ranks) -> Iterator[Path]:
    """The work folder, this command's alone. It stays after an error if there is work to go on with."""
    work = work_folder(output)
    with contextlib.ExitStack() as stack:
        if ranks.is_first:
            shutil.rmtree(_rubbish(work), ignore_errors=True)  # of a run that was killed while it removed it
            work.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(work / "lock", output))
        ranks.barrier()
        try:
            yield work
        except BaseException as error:
            if ranks.is_first and not any(work.rglob(DONE)):
                remove(work)
            elif isinstance(error, UserError):
                raise UserError(f"{error}; {kept(output)}") from None
            raise
        ranks.barrier()
        if ranks.is_first:
            remove(work)


def remove(work: Path) -> None:
    """Remove the work folder, under another name: half removed, it would not be what its marks say."""
    if work.exists():
        shutil.rmtree(_rubbish(work), ignore_errors=True)
        work.rename(_rubbish(work))
        shutil.rmtree(_rubbish(work), ignore_errors=True)


def _rubbish(work: Path) -> Path:
    return work.with_suffix(".rubbish")


@contextlib.contextmanager
def _locked(path: Path, output: Path) -> Iterator[None]:
    """Hold the lock at `path`, which ends with this process; UserError if another one has it."""
    with path.open("w") as file:
        end = time.monotonic() + _SECONDS_FOR_LOCK
        while not _take(file):
            if time.monotonic() > end:
                raise UserError(f"another prepare is making {output}: wait for it or end it")
            time.sleep(0.1)
        if not path.exists():  # removed with the folder by the one that had it
            raise UserError(f"another prepare has just finished {output}: start this one again")
        yield


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
