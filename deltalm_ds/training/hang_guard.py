"""The second line of defence against hangs: for a process whose Python threads cannot run at all."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
from pathlib import Path


class HangGuard:
    """Leaves this process's stacks, and later ends it, unless it is armed again in time.

    A main thread that hangs in C without giving up the interpreter's lock stops every Python thread. Then the
    kernel's timer makes faulthandler write all stacks from a signal handler (SIGALRM), and later a thread of
    faulthandler, which needs no lock, writes them again and ends the process, with exit code 1: it knows no
    other. Between the two the other ranks leave, with a code that tells more.

    While it stands, a process forked from this one must end by os._exit, as multiprocessing's do: the fork
    copies a lock that faulthandler's thread holds, and waits for it at its end.

    Args:
        path: of the stacks; what is there is kept and another name taken. The file is there, empty, while the
            guard stands, and an empty one is removed by `close`.
    """

    def __init__(self, path: Path) -> None:
        self._path = _fresh(path)
        self._file = self._path.open("wb")
        faulthandler.register(signal.SIGALRM, self._file, all_threads=True)

    def arm(self, dump_seconds: float, end_seconds: float) -> None:
        """Write the stacks in `dump_seconds` (0: never) and end the process in `end_seconds`."""
        signal.setitimer(signal.ITIMER_REAL, dump_seconds)
        faulthandler.dump_traceback_later(end_seconds, exit=True, file=self._file)

    def close(self) -> None:
        """Never do so."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGALRM)
        self._file.close()
        self.tidy()

    def tidy(self) -> None:
        """Remove the file if it is empty, and its folder if that is."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_size == 0:
                self._path.unlink()
            self._path.parent.rmdir()


def _fresh(path: Path) -> Path:
    """`path`, or the first of path.2, path.3 … that holds nothing."""
    number, fresh = 1, path
    while fresh.exists() and fresh.stat().st_size > 0:
        number += 1
        fresh = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return fresh
