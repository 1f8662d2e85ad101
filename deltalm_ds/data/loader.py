"""Batches made ahead of time by worker processes, and their way to the device."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deltalm_ds.data.batches import GlobalBatch, MicroBatch, StepBatches
from deltalm_ds.errors import UserError

STEPS_AHEAD = 2
"""Steps that every worker makes in advance."""

_MAIN_PROCESS_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


class Reader(Protocol):
    """What makes a step's batches; `deltalm_ds.data.batches.StepReader` is one. Workers get a copy each."""

    def read(self, batch: GlobalBatch) -> StepBatches:
        """What this rank runs of a global batch."""


class StepLoader:
    """Iterates over what this rank runs, step after step. Close it, or use it in a with block.

    The number of workers changes nothing but the time: each step is made whole, by one of them, from its
    range of positions alone. They end with this process however it ends, and leave every signal to it.
    A UserError in a worker is raised here as it is, other exceptions with the worker's traceback.

    Args:
        reader: makes the batches; with workers, it and its class must be importable and picklable.
        batches: the steps to come.
        num_workers: processes to start; with 0 the batches are made in this one, when they are asked for.
    """

    def __init__(self, reader: Reader, batches: Iterable[GlobalBatch], num_workers: int) -> None:
        self.waited_seconds = 0.0
        """Time that was spent in waiting for batches so far."""
        others = multiprocessing.active_children()
        with _signals_left_to_this_process():
            self._steps: Any = iter(
                DataLoader(
                    _Steps(reader),
                    batch_size=None,
                    sampler=batches,
                    num_workers=num_workers,
                    prefetch_factor=STEPS_AHEAD if num_workers else None,
                    collate_fn=_as_it_is,
                    worker_init_fn=_start_worker,
                    # spawn: a fork would copy a process that has threads (gloo's, NCCL's, OpenMP's) holding
                    # locks, and a CUDA context that no child may touch. A spawned worker has nothing but the
                    # reader, and maps the corpus from its path.
                    multiprocessing_context="spawn" if num_workers else None,
                    # Its own generator: torch would draw the workers' seeds from the global one and so
                    # change every later draw.
                    generator=torch.Generator(),
                )
            )
        self._workers = [child for child in multiprocessing.active_children() if child not in others]
        # For an exit without close(). It runs before multiprocessing's own exit handler, which would ask the
        # workers to end by SIGTERM and wait for ever, as they leave that signal to this process.
        atexit.register(self.close)

    def __iter__(self) -> Iterator[StepBatches]:
        return self

    def __next__(self) -> StepBatches:
        start = time.perf_counter()
        try:
            made = next(self._steps)
        finally:
            self.waited_seconds += time.perf_counter() - start
        if isinstance(made, UserError):
            raise made
        return made

    def __enter__(self) -> StepLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. No step can be asked for afterwards."""
        atexit.unregister(self.close)
        if self._workers:
            # Not by dropping the iterator, which the frames of an exception on its way may hold.
            self._steps._shutdown_workers()
            for worker in self._workers:  # those that read for longer than torch waits
                worker.kill()
        self._workers, self._steps = [], iter(())


class _Steps(Dataset[StepBatches | UserError]):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, batch: GlobalBatch) -> StepBatches | UserError:
        try:
            return self._reader.read(batch)
        except UserError as error:
            return error  # as a value: torch would add the worker's traceback to the one line


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


def _as_it_is(made: Any) -> Any:
    return made  # NumPy arrays, sent through a pipe: tensors would fill /dev/shm, which containers keep small


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


def _start_worker(_number: int) -> None:
    # torch's own watchdog looks at the parent only between steps.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Not by waiting for its sentinel: a pipe, which any fork of the parent may hold open after it.
    while os.getppid() == parent.pid:
        time.sleep(1.0)
    os._exit(1)
