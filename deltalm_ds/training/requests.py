"""What a run is asked for from outside: to stop, or to save now. All ranks agree before one acts.

SIGTERM and SIGUSR1, to any rank, and a file `stop` in the run's folder ask for an end; a file `save` for a
checkpoint. A thread of every rank looks for them once a second and spreads a wish to stop through the store
by which torch.distributed met, so that a rank that waits for its data hears of it too.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import signal
import threading
from pathlib import Path
from types import TracebackType

import torch
import torch.distributed as dist

from deltalm_ds.errors import UserError
from deltalm_ds.training.distributed import Process, process_store
from deltalm_ds.training.stop_signals import STOP_SIGNALS, caught_signals

STOP_FILE, SAVE_FILE = "stop", "save"

_SECONDS_BETWEEN_LOOKS = 1.0
_KEY = "stop"
_numbers = itertools.count()


class Stopped(Exception):  # noqa: N818
    """The run was asked to stop; raised on every rank at the same place. Its text says by whom."""


class Requests:
    """The wishes of one run, in a with block; made by all ranks together."""

    def __init__(self, output: Path, process: Process) -> None:
        self._output, self._process = output, process
        self._signals = caught_signals()
        self._group = dist.new_group(backend="gloo") if process.world_size > 1 else None
        self._store = dist.PrefixStore(f"requests-{next(_numbers)}", process_store())
        self._asked, self._closed = threading.Event(), threading.Event()
        self._save_is_asked = False
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Requests:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if error is None:  # after an error the store may be gone, and the thread wait for it
            self._thread.join()

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether this rank has heard of a wish to stop; others may hear a second later."""
        return self._asked.is_set()

    def check(self) -> None:
        """Raises Stopped on all ranks if any has heard of a wish to stop; called by all together."""
        self._agree(False, False)

    def agree(self, *, is_writing: bool) -> tuple[bool, bool]:
        """What all ranks do with the next step; called by all together, before each.

        Returns whether to save after it, and whether any rank `is_writing` still. Raises as `check` does.
        """
        save, writing = self._agree(self._save_is_asked, is_writing)
        if save and self._process.is_first:
            (self._output / SAVE_FILE).unlink(missing_ok=True)
            self._save_is_asked = False
        return save, writing

    def _agree(self, *wishes: bool) -> list[bool]:
        """For each wish, whether any rank has it."""
        flags = torch.tensor([self._asked.is_set(), *wishes], dtype=torch.int32)
        if self._group is not None:
            dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._group)
        stop, *any_wish = flags.bool().tolist()
        if stop:
            raise Stopped(self._store.get(_KEY).decode())
        return any_wish

    def _listen(self) -> None:
        # Without its store, which is rank 0's, the run ends at its next collective.
        with contextlib.suppress(dist.DistError, RuntimeError):
            while not self._closed.is_set():
                if reason := self._heard():
                    self._store.set(_KEY, reason)
                if reason or self._store.check([_KEY]):
                    self._asked.set()
                    return

    def _heard(self) -> str | None:
        """Who asks this rank to stop, after waiting for a while."""
        if select.select([self._signals], [], [], _SECONDS_BETWEEN_LOOKS)[0]:
            for number in self._signals.recv(64):
                if number in STOP_SIGNALS:
                    return f"{signal.Signals(number).name} on rank {self._process.rank}"
        if self._process.is_first:
            self._save_is_asked = (self._output / SAVE_FILE).exists()
            if (self._output / STOP_FILE).exists():
                return f"the file {self._output / STOP_FILE}"
        return None


def refuse_stop_file(output: Path) -> None:
    """Raises UserError where the file is there that would stop the run at once."""
    if (output / STOP_FILE).exists():
        raise UserError(f"{output / STOP_FILE} asks runs in this folder to stop: remove it to go on")
