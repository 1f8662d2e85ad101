"""Batches made ahead of time by worker processes, and their way to the device."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import multiprocessing
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import cycle
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import numpy as np
import torch
from torch import Tensor

from deltalm_ds.data.batches import GlobalBatch, MicroBatch, StepBatches
from deltalm_ds.data.workers import Failure, Made, Reader, work
from deltalm_ds.errors import UserError

STEPS_AHEAD = 2
"""Steps that every worker makes in advance, and that are kept here on top of these."""

_MAIN_PROCESS_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


class StepLoader:
    """Iterates over what this rank runs, step after step. Close it, or use it in a with block.

    The number of workers changes nothing but the time: each step is made whole, by one of them, from its
    range of positions alone. They end with this process however it ends, and leave every signal to it.
    A UserError in a worker is raised here as it is, another exception as a RuntimeError with the worker's
    traceback.

    Args:
        reader: makes the batches; with workers, it and its class must be importable and picklable.
        batches: the steps to come; with workers, asked for by a thread.
        num_workers: processes to start; with 0 the batches are made in this one, when they are asked for.
    """

    def __init__(self, reader: Reader, batches: Iterable[GlobalBatch], num_workers: int) -> None:
        self.waited_seconds = 0.0
        """Time that was spent in waiting for batches so far."""
        self._reader, self._batches = reader, iter(batches)
        self._workers = _Workers(reader, self._batches, num_workers) if num_workers else None
        # For an exit without close(). It runs before multiprocessing's own exit handler, which would ask the
        # workers to end by SIGTERM and wait for ever, as they leave that signal to this process.
        atexit.register(self.close)

    def __iter__(self) -> Iterator[StepBatches]:
        return self

    def __next__(self) -> StepBatches:
        start = time.perf_counter()
        try:
            if self._workers is not None:
                return self._workers.next_step()
            return self._reader.read(next(self._batches))
        finally:
            self.waited_seconds += time.perf_counter() - start

    def wait(self, seconds: float) -> bool:
        """Wait that long at most until the next step is there, or its end; whether it is."""
        start = time.perf_counter()
        try:
            return self._workers is None or self._workers.wait(seconds)
        finally:
            self.waited_seconds += time.perf_counter() - start

    def __enter__(self) -> StepLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. No step can be asked for afterwards."""
        atexit.unregister(self.close)
        if self._workers is not None:
            self._workers.end()
        self._workers, self._batches = None, iter(())


@dataclasses.dataclass(frozen=True)
class _End:
    """No step comes after it, but this error if there is one."""

    error: Exception | None


class _Workers:
    """Processes that take turns at reading steps, and a thread that receives these ahead of time."""

    def __init__(self, reader: Reader, batches: Iterator[GlobalBatch], num_workers: int) -> None:
        self._batches = batches
        self._received: queue.Queue[Made | _End] = queue.Queue(STEPS_AHEAD)
        self._end: _End | None = None
        self._next: Made | _End | None = None
        self._processes: list[SpawnProcess] = []
        self._connections: list[Connection] = []
        self._thread = threading.Thread(target=self._receive, daemon=True)
        try:
            with _signals_left_to_this_process():
                for _ in range(num_workers):
                    self._start_worker(reader)
                self._thread.start()
        except BaseException:
            self.end()
            raise

    def next_step(self) -> StepBatches:
        """Raises StopIteration after the last one."""
        made = self._end or self._next or self._received.get()
        self._next = None
        if isinstance(made, StepBatches):
            return made
        if isinstance(made, UserError):
            raise made
        if isinstance(made, Failure):
            raise RuntimeError(f"a loader worker failed:\n{made.traceback}")
        self._end = made
        raise made.error or StopIteration

    def wait(self, seconds: float) -> bool:
        """Whether the next step, or the end, comes within that time."""
        if self._end is None and self._next is None:
            with contextlib.suppress(queue.Empty):
                self._next = self._received.get(timeout=seconds)
        return self._end is not None or self._next is not None

    def end(self) -> None:
        """Whatever the workers are doing: they hold nothing that could be lost."""
        for process in self._processes:
            process.kill()
        while self._thread.is_alive():  # until it sees their ends, for which it may need room
            with contextlib.suppress(queue.Empty):
                self._received.get(timeout=0.01)
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.join()
            process.close()
            connection.close()

    def _start_worker(self, reader: Reader) -> None:
        # spawn: a fork would copy a process that has threads (gloo's, NCCL's, OpenMP's) holding locks, and a
        # CUDA context that no child may touch. A spawned worker has nothing but the reader, and maps the
        # corpus from its path.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with theirs:  # closed here, so that its end is seen when the worker ends
            process = context.Process(target=work, args=(reader, theirs), daemon=True)
            process.start()
        self._processes.append(process)
        self._connections.append(ours)

    def _receive(self) -> None:
        """The thread. Steps come through pipes, not as tensors in /dev/shm, which containers keep small."""
        error: Exception | None
        try:
            error = self._receive_all()
        except (EOFError, ConnectionError):
            error = RuntimeError("a loader worker ended before its time; what it printed may say why")
        except Exception as unexpected:  # an end of the thread without a word would be waited for
            error = unexpected
        self._received.put(_End(error))

    def _receive_all(self) -> Exception | None:
        """Ask for every step and receive it; returns what stopped the batches, if not their end."""
        asked: deque[Connection] = deque()
        for connection in cycle(self._connections):
            try:
                batch = next(self._batches, None)
            except Exception as error:
                self._receive_from(asked)
                return error
            if batch is None:
                break
            connection.send(batch)
            asked.append(connection)
            if len(asked) == STEPS_AHEAD * len(self._connections):
                self._received.put(asked.popleft().recv())
        self._receive_from(asked)
        return None

    def _receive_from(self, asked: Iterable[Connection]) -> None:
        for connection in asked:
            self._received.put(connection.recv())


def to_tensors(batch: MicroBatch[np.ndarray], device: torch.device) -> MicroBatch[Tensor]:
    """The same micro-batch as tensors on `device`; copies to a GPU go through pinned memory, unwaited for."""
    tensors = {
        field.name: _to_device(torch.from_numpy(value), device)
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), np.ndarray)
    }
    return dataclasses.replace(batch, **tensors)  # type: ignore[return-value, arg-type]


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


@contextlib.contextmanager
def _signals_left_to_this_process() -> Iterator[None]:
    """Processes started in the block never see signals meant for the run: they inherit this mask for life.

    Ignoring them from within would leave the seconds of a worker's start, in which a signal to the whole
    process group would end it.
    """
    resource_tracker.ensure_running()  # starting it within the block would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _MAIN_PROCESS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
