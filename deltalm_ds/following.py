"""Ending with whoever started this process, for nobody else would end it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

_LOADED_BY, _PARENT = os.getpid(), os.getppid()  # now, for it may be gone when it is asked for
_SECONDS_BETWEEN_LOOKS = 0.2


def follow_launcher() -> None:
    """End this process, with exit code 1, when the launcher that started it (torchrun, deepspeed, …) is gone.

    Launchers that are killed, and some that are only asked to stop, leave behind what they started.
    """
    launcher = _PARENT if os.getpid() == _LOADED_BY else os.getppid()  # a fork has another parent
    parents = {os.getpid(): launcher}
    # The deepspeed command, or the ssh connection from it, starts a process that starts the ranks.
    with contextlib.suppress(OSError):
        if b"deepspeed.launcher.launch" in Path(f"/proc/{launcher}/cmdline").read_bytes():
            parents[launcher] = _parent_of(launcher)
    _follow(parents, "the launcher is gone: ending")


def follow_parent() -> None:
    """End this process, with exit code 1, when the one that started it by multiprocessing's spawn is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    # Not by waiting for its sentinel: a pipe, which any fork of the parent may hold open after it.
    _follow({os.getpid(): parent.pid}, None)


def _follow(parents: dict[int, int], last_words: str | None) -> None:
    """Parents by child: as soon as a child has another one, this process ends."""

    def look() -> None:
        while all(_parent_of(child) == parent for child, parent in parents.items()):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if last_words is not None:
            with contextlib.suppress(OSError):  # what was written to may be gone too
                print(f"deltalm-ds: {last_words}", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def _parent_of(process: int) -> int:
    """0 for a process that is gone."""
    if process == os.getpid():
        return os.getppid()
    try:
        # The name, in parentheses, may hold anything; the state and the parent follow it.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
