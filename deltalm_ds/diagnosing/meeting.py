"""All ranks of the check-up, who speak through a store at rank 0, so that a rank that is late can be named.

A store of torch (TCPStore) needs no process group, whose making may be what hangs. The group is made through
the same store afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, DistNetworkError, TCPStore

from deltalm_ds.diagnosing.findings import EXIT_UNFIT, EXIT_WELL
from deltalm_ds.diagnosing.launch import Launch
from deltalm_ds.errors import UserError

_SECONDS_BETWEEN_LOOKS = 0.02
_SECONDS_BETWEEN_WATCHES = 0.25
_SECONDS_AFTER_RANK_0 = 10.0  # what others wait longer than rank 0, which is to speak
_SECONDS_TO_LEAVE = 5.0
_GIVEN_UP = "given up"


class RankZeroIsMissingError(Exception):
    """Nobody answers where rank 0 should; `is_refused`: its host answers that nobody listens."""

    def __init__(self, message: str, is_refused: bool = False) -> None:
        super().__init__(message)
        self.is_refused = is_refused


@dataclass(frozen=True)
class Posted:
    """What a rank has posted of a stage: a JSON value, or why it has none."""

    value: Any
    failure: str | None = None


OnAbsent = Callable[[str, list[int], dict[int, Posted]], int]
"""Told the stage, the ranks that did not post in time, and what the others posted; gives the exit code."""


class Meeting:
    """The ranks, who go through the stages of the check-up together. Rank 0 hears all."""

    def __init__(self, launch: Launch, timeout_seconds: float, on_absent: OnAbsent) -> None:
        """Meet; UserError for a port that is taken, RankZeroIsMissingError if rank 0 is not to be found."""
        self.rank, self.world_size = launch.rank, launch.world_size
        self._timeout_seconds, self._on_absent = timeout_seconds, on_absent
        self._store = _open_store(launch, timeout_seconds)
        self.port: int = self._store.port
        self._deadline: tuple[str, float] | None = None
        self._is_over = self._is_giving_up = False
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def is_first(self) -> bool:
        """Rank 0 collects and judges."""
        return self.rank == 0

    def gather(self, stage: str, measure: Callable[[], Any]) -> list[Posted]:
        """Call `measure` on every rank; what all got, by rank, on rank 0, and nothing on others.

        All enter the next stage together. An error of the system, of torch or of the user's is posted in
        place of the value. Where a rank is later than the timeout, all processes end.
        """
        with self._until_deadline(stage):
            self.post(f"{stage}/{self.rank}", _attempt(measure).__dict__)
            if not self.is_first:
                self.wait_for([f"{stage}/all"])
                return []
            keys = [f"{stage}/{rank}" for rank in range(self.world_size)]
            self.wait_for(keys)
            posted = [Posted(**self.read(key)) for key in keys]
            self.post(f"{stage}/all", None)
            return posted

    def share(self, name: str, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        with self._until_deadline(name):
            if self.is_first:
                self.post(name, value)
            self.wait_for([name])
            return self.read(name)

    def leave(self) -> None:
        """Part: rank 0, which holds the store, goes last."""
        self._is_over = True
        with contextlib.suppress(DistError):
            self._part(range(self.world_size))

    def post(self, key: str, value: Any) -> None:
        """Write a JSON value into the store."""
        self._store.set(key, json.dumps(value))

    def read(self, key: str) -> Any:
        """A value that is in the store."""
        return json.loads(self._store.get(key))

    def has(self, key: str) -> bool:
        """Whether somebody has posted under `key`."""
        return bool(self._store.check([key]))

    def wait_for(self, keys: Iterable[str]) -> None:
        """Return when all keys are posted. By looks: a wait of the store's own would lock out the watch."""
        keys = list(keys)
        while not self._store.check(keys) or self._is_giving_up:  # who comes now is too late
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    @contextlib.contextmanager
    def _until_deadline(self, stage: str) -> Iterator[None]:
        seconds = self._timeout_seconds + (0.0 if self.is_first else _SECONDS_AFTER_RANK_0)
        self._deadline = (stage, time.monotonic() + seconds)
        try:
            yield
        except DistError as error:
            raise RankZeroIsMissingError("rank 0 has ended meanwhile; its own message says why") from error
        finally:
            self._deadline = None

    def _watch(self) -> None:
        """In a thread of its own: end the process in time, even if it hangs in somebody else's code."""
        try:
            while not self._is_over:
                deadline = self._deadline
                if self.has(_GIVEN_UP):
                    self._end(EXIT_WELL)  # rank 0 answers for all
                if deadline is not None and time.monotonic() > deadline[1]:
                    self._give_up(deadline[0])
                time.sleep(_SECONDS_BETWEEN_WATCHES)
        except DistError:
            time.sleep(_SECONDS_TO_LEAVE)  # for the main thread to say that rank 0 is gone, unless it hangs
            self._end(EXIT_UNFIT)

    def _give_up(self, stage: str) -> None:
        if not self.is_first:
            self._end(EXIT_UNFIT)
        there = [rank for rank in range(self.world_size) if self.has(f"{stage}/{rank}")]
        missing = [rank for rank in range(self.world_size) if rank not in there]
        if missing:
            self._is_giving_up = True
            posted = {rank: Posted(**self.read(f"{stage}/{rank}")) for rank in there}
            code = self._on_absent(stage, missing, posted)
            self.post(_GIVEN_UP, None)
            self._end(code)

    def _end(self, code: int) -> None:
        """End the process from the watch, whatever the main thread is at."""
        with contextlib.suppress(DistError):
            self._part(rank for rank in range(self.world_size) if self.has(f"arrival/{rank}"))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _part(self, others: Iterable[int]) -> None:
        """Say goodbye; rank 0 hears those of the others, or some seconds of silence."""
        self.post(f"left/{self.rank}", None)
        if self.is_first:
            keys = [f"left/{rank}" for rank in others]
            end = time.monotonic() + _SECONDS_TO_LEAVE
            while not self._store.check(keys) and time.monotonic() < end:
                time.sleep(_SECONDS_BETWEEN_LOOKS)


def _attempt(measure: Callable[[], Any]) -> Posted:
    try:
        return Posted(measure())
    except OSError as error:
        words = error.strerror or repr(error)
        return Posted(None, f"{error.filename}: {words}" if error.filename else words)
    except (RuntimeError, UserError, subprocess.SubprocessError) as error:
        return Posted(None, " ".join(str(error).split()) or repr(error))


def _open_store(launch: Launch, timeout_seconds: float) -> TCPStore:
    is_server = launch.rank == 0 and not launch.is_store_there
    if not is_server:
        _wait_for_port(launch, timeout_seconds)
    try:
        # Multi-tenant: the process group, later, finds this server in its own process.
        return TCPStore(
            launch.address,
            launch.port,
            None,
            is_server,
            timedelta(seconds=timeout_seconds),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except DistNetworkError as error:
        if "EADDRINUSE" in str(error):
            raise UserError(
                f"port {launch.port} of this host is taken, perhaps by another run: give another one "
                "(deepspeed --master_port, torchrun --master-port, or MASTER_PORT)"
            ) from error
        raise RankZeroIsMissingError(" ".join(str(error).split())) from error


def _wait_for_port(launch: Launch, timeout_seconds: float) -> None:
    end = time.monotonic() + timeout_seconds
    while True:
        try:
            left = max(0.1, end - time.monotonic())
            socket.create_connection((launch.address, launch.port), timeout=left).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise RankZeroIsMissingError(
                    f"rank 0 did not answer at {launch.address}:{launch.port} within {timeout_seconds:g} s "
                    f"({error.strerror or error})",
                    is_refused=isinstance(error, ConnectionRefusedError),
                ) from None
        time.sleep(_SECONDS_BETWEEN_LOOKS * 10)
