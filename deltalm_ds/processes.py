"""Worker processes that map a function over a stream, in order, with bounded memory."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

from deltalm_ds.following import follow_parent

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_IN_FLIGHT_PER_WORKER = 3


class Workers:
    """`count` processes, in a with block; one means this process itself.

    They are started afresh (spawn), so a program that uses more than one must guard its main module by
    `if __name__ == "__main__"`. They end with this process, however it ends.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"at least one worker is needed, not {count}")
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.count > 1:
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[ResultT]:
        """`function` of every item, in the items' order. A few items a worker are held at a time.

        The first exception in that order is raised here, whichever came first in time.
        """
        if self._pool is None:
            yield from map(function, items)
            return
        pending: deque[Future[ResultT]] = deque()
        for item in items:
            pending.append(self._pool.submit(function, item))
            if len(pending) > _IN_FLIGHT_PER_WORKER * self.count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    follow_parent()
