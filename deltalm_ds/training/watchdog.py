"""A watchdog in every rank of a training job: a hang leaves all ranks' stacks and ends the job with 85.

    with Watchdog(output, store=store, rank=rank, …) as watchdog:
        watchdog.progress("step")        # before every micro-batch
        watchdog.finished_step()         # after the update
        watchdog.progress("validation")  # before every batch of it
        watchdog.progress("save")        # before a checkpoint

Torch's own watchdog for NCCL sees collectives only, after a fixed time, and knows no Python.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import torch
import torch.distributed as dist

from deltalm_ds.files import write_text_atomically
from deltalm_ds.training.hang_guard import HangGuard
from deltalm_ds.training.hang_report import (
    Standing,
    count_collectives,
    one_line,
    place_of,
    table,
    write_flight_record,
    write_stacks,
)
from deltalm_ds.training.hang_store import HangStore
from deltalm_ds.training.monitor import say
from deltalm_ds.training.stop_signals import EXIT_STOPPED
from deltalm_ds.training.watchdog_settings import Phase, WatchdogSettings, limit_seconds

HANG = "hang"
"""The folder in a run's output where hangs leave their stacks."""
EXIT_HUNG = EXIT_STOPPED
"""Run me again, as after being asked to stop; but here nothing was saved before."""

_LOOK_SECONDS = 1.0
_USUAL_STEPS = 32  # the median of fewer follows single steps, of more it follows the run too late
# A process whose Python does not run writes its stacks so long after its limit, and ends so long after it. In
# between the others wait for answers, write, and leave: the launcher then ends it, and 85 came first.
_HELD_SECONDS = 3.0
_END_SECONDS = 90.0
_STORE_SECONDS = 5.0
_WRITE_SECONDS = 10.0
_ANSWER_SECONDS = 10.0

T = TypeVar("T")
_names = itertools.count()


@dataclass(frozen=True)
class _Mark:
    """The main thread's last sign of progress."""

    phase: Phase
    batch: int
    time: float
    """By the monotonic clock, which stands still while the machine sleeps."""


class Watchdog:
    """Watches over this rank, and hears when another one is overdue.

    Two threads serve it. One looks at this rank's progress every second, and counts the looks rather than the
    time between them, so that a stopped process (SIGSTOP) is not an idle one. The other talks with the store,
    and may hang in it. A rank that is overdue raises the alarm; then all ranks write their Python stacks and
    their part of the flight recorder, one of them names the rank that is behind in one line and writes a
    table of all, and all end with 85. A rank whose Python does not run is left to `HangGuard`.

    Args:
        output: the run's folder; the rest goes into its folder "hang".
        store: of the process group, served for as long as the job runs.
        rank: of this process.
        world_size: all ranks, each of which has a watchdog.
        device: that of this process, which tells the flight recorder.
        settings: the limits.
        end: how to end the process, given the exit code.
    """

    def __init__(
        self,
        output: Path,
        *,
        store: dist.Store,
        rank: int,
        world_size: int,
        device: torch.device,
        settings: WatchdogSettings,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._folder = output / HANG
        self._rank, self._world_size, self._device = rank, world_size, device
        self._settings = settings
        self._end = end
        self._step = 0
        self._mark = _Mark("start", 0, time.monotonic())
        self._idle_seconds = 0.0
        self._step_seconds: float | None = None  # of the step under way, but not of the first
        self._durations: deque[float] = deque(maxlen=_USUAL_STEPS)
        self._usual_step: float | None = None
        self._source, self._name = store, f"watchdog/{next(_names)}"
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._alarm: str | None = None
        self._guard: HangGuard | None = None

    def resume(self, step: int) -> None:
        """Say how many optimizer steps the run has behind it, before its first one here."""
        self._step = step

    def progress(self, phase: Phase) -> None:
        """Say that the main thread goes on, and with what."""
        last, now = self._mark, time.monotonic()
        if last.phase == "step" and self._step_seconds is not None:
            self._step_seconds += now - last.time
        self._mark = _Mark(phase, last.batch + 1 if last.phase == phase else 1, now)
        if last.phase != phase and self._guard is not None:
            # If it hangs before the next look, the limit of the phase before would hold.
            self._arm(self._guard, self._limit())

    def finished_step(self) -> None:
        """Say that an optimizer step is done; what follows belongs to the next one."""
        self.progress("step")
        if self._step_seconds is not None:
            self._durations.append(self._step_seconds)
            self._usual_step = statistics.median(self._durations)
        self._step_seconds = 0.0
        self._step += 1
        self._mark = _Mark("step", 0, self._mark.time)

    def __enter__(self) -> Watchdog:
        if self._settings.no_watchdog:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        self._taken = {path.name.split("-")[0] for path in self._folder.iterdir()}
        self._main_thread = threading.get_ident()
        self._host = socket.gethostname()
        self._store = HangStore(self._source, self._name, self._rank, self._world_size)
        self._guard = guard = HangGuard(self._folder / f"held-rank_{self._rank}.txt")
        self._mark = _Mark("start", 0, time.monotonic())
        self._talker = threading.Thread(target=self._talk, name="watchdog's store", daemon=True)
        self._talker.start()
        self._looker = threading.Thread(target=self._look_on, args=[guard], name="watchdog", daemon=True)
        self._looker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._guard is None:
            return
        self._stopping.set()
        self._woken.set()
        # If it is ending the job, it ends this thread too: the error may come from ranks that have left.
        self._looker.join()
        self._guard.close()
        self._talker.join(_STORE_SECONDS)  # as in _answer
        _within(_STORE_SECONDS, lambda: self._store.leave(self._standing()))

    def _look_on(self, guard: HangGuard) -> None:
        seen, last_look = self._mark, time.monotonic()
        while not self._stopping.is_set():
            mark, now = self._mark, time.monotonic()
            # A look that comes late counts little more: the process was stopped, or the machine.
            elapsed, last_look = min(now - last_look, 2 * _LOOK_SECONDS), now
            self._idle_seconds = (
                self._idle_seconds + elapsed if mark is seen else min(elapsed, now - mark.time)
            )
            seen = mark
            left = self._limit() - self._idle_seconds
            if left <= 0 or self._alarm is not None:
                self._end_job(guard)
                return
            self._arm(guard, left)
            self._woken.wait(_LOOK_SECONDS)

    def _talk(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            standing = self._standing()
            try:
                self._store.post(standing)
                self._alarm = self._store.alarm()
            except RuntimeError:  # the store is gone with rank 0's process
                return
            if self._alarm is not None:
                self._woken.set()
                return

    def _arm(self, guard: HangGuard, left: float) -> None:
        guard.arm(left + _HELD_SECONDS, left + _END_SECONDS)

    def _end_job(self, guard: HangGuard) -> None:
        self._stopping.set()
        guard.arm(0, _END_SECONDS)
        standing = self._standing(place_of(self._main_thread))
        name = self._fresh_name(standing)
        agreed = self._alarm or _within(_STORE_SECONDS, lambda: self._store.raise_alarm(name))
        stacks = self._folder / (agreed or name)
        path = stacks.with_name(f"{stacks.name}-rank_{self._rank}.txt")
        _within(_WRITE_SECONDS, lambda: write_stacks(path, standing, self._main_thread))
        record = stacks.with_name(f"{stacks.name}-collectives") / f"rank_{self._rank}"
        _within(_WRITE_SECONDS, lambda: write_flight_record(record, self._device))
        if agreed is None:
            line = one_line({self._rank: standing}, 1, stacks)
            _within(_WRITE_SECONDS, lambda: say(f"{line}. The other ranks' store does not answer"))
        else:
            _within(3 * _ANSWER_SECONDS, lambda: self._answer(standing, stacks))
        _within(_STORE_SECONDS, guard.tidy)
        self._end(EXIT_HUNG)

    def _answer(self, standing: Standing, stacks: Path) -> None:
        def tell(standings: dict[int, Standing]) -> None:
            _within(
                _WRITE_SECONDS,
                lambda: write_text_atomically(stacks.with_name(f"{stacks.name}.txt"), table(standings)),
            )
            _within(_WRITE_SECONDS, lambda: say(one_line(standings, self._world_size, stacks)))

        self._talker.join()  # it must not post what is older
        self._store.answer(standing)
        self._store.report(tell, _ANSWER_SECONDS)

    def _limit(self) -> float:
        return limit_seconds(self._settings, self._mark.phase, self._usual_step)

    def _standing(self, place: str = "") -> Standing:
        mark = self._mark
        return Standing(
            rank=self._rank,
            host=self._host,
            phase=mark.phase,
            step=self._step,
            batch=mark.batch,
            idle_seconds=self._idle_seconds,
            limit_seconds=self._limit(),
            num_collectives=count_collectives(),
            place=place,
            posted_at=time.time(),
            has_answered=False,
        )

    def _fresh_name(self, standing: Standing) -> str:
        first = name = f"step_{standing.step + (standing.phase == 'step')}"
        number = 1
        while name in self._taken or f"{name}.txt" in self._taken:
            number += 1
            name = f"{first}.{number}"
        return name


def _within(seconds: float, action: Callable[[], T]) -> T | None:
    """What `action` returns; None if it fails, or takes longer because it waits for a dead host or disk."""
    box: list[T] = []

    def act() -> None:
        with contextlib.suppress(OSError, RuntimeError):
            box.append(action())

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    return box[0] if box else None
