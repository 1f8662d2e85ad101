"""The processes of a command that MPI started, on one node or many; one process without MPI.

Used by commands that share work through files. mpi4py is imported only under `mpirun` or `srun --mpi`.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from deltalm_ds.errors import UserError
from deltalm_ds.following import follow_launcher
from deltalm_ds.launching import has_mpi, launcher_of, srun_task

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")

_SECONDS_BETWEEN_LOOKS = 0.02
_PROGRESS_TAG = 1


class Ranks:
    """All processes of the command, in a with block; this one has the number `rank` of `count`.

    An exception that leaves the block on one rank ends all of them: after it, none waits for another.
    """

    def __init__(self) -> None:
        self._communicator: Any = None
        self.rank, self.count, self.rank_on_node, self.count_on_node = 0, 1, 0, 1
        if has_mpi(os.environ):
            from mpi4py import MPI

            follow_launcher()
            self._communicator = MPI.COMM_WORLD
            self.rank, self.count = self._communicator.rank, self._communicator.size
            node = self._communicator.Split_type(MPI.COMM_TYPE_SHARED)
            self.rank_on_node, self.count_on_node = node.rank, node.size
            node.Free()
        elif launcher_of(os.environ) == "srun" and (task := srun_task(os.environ)) and task.count > 1:
            raise UserError(
                f"srun started {task.count} processes that do not know of each other: give it the plugin of "
                "your MPI library, --mpi=pmix or --mpi=pmi2, or start them by mpirun"
            )

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which speaks for all."""
        return self.rank == 0

    def from_first(self, make: Callable[[], ResultT]) -> ResultT:
        """What `make` returns on rank 0, on all ranks; they wait without computing. Small things only."""
        if self.count == 1:
            return make()
        made = make() if self.is_first else None
        self.barrier()
        return self._communicator.bcast(made)

    def gathered(self, value: ResultT) -> list[ResultT]:
        """The values of all ranks, by rank, on all ranks. Small things only."""
        if self.count == 1:
            return [value]
        self.barrier()
        return self._communicator.allgather(value)

    def barrier(self, meanwhile: Callable[[], object] | None = None) -> None:
        """Return when all ranks are here. Waiting ranks sleep, where MPI's own barrier would spin."""
        if self.count == 1:
            return
        request = self._communicator.Ibarrier()
        while not request.Test():
            if meanwhile is not None:
                meanwhile()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if meanwhile is not None:
            meanwhile()

    def send_progress(self, count: int) -> None:
        """Tell rank 0 of `count` done; it asks by `received_progress`."""
        self._communicator.send(count, dest=0, tag=_PROGRESS_TAG)

    def received_progress(self) -> int:
        """What other ranks have done since this was last asked, on rank 0."""
        total = 0
        while self.count > 1 and self._communicator.iprobe(tag=_PROGRESS_TAG):
            total += self._communicator.recv(tag=_PROGRESS_TAG)
        return total

    def share(self, items: Sequence[ItemT], cost: Callable[[ItemT], float]) -> list[ItemT]:
        """This rank's part of some items, the same lists on all ranks: about equal costs, in order.

        The longest go first, each to the rank that has least so far.
        """
        totals = [0.0] * self.count
        mine = set()
        for number in sorted(range(len(items)), key=lambda number: (-cost(items[number]), number)):
            rank = totals.index(min(totals))
            totals[rank] += cost(items[number])
            if rank == self.rank:
                mine.add(number)
        return [item for number, item in enumerate(items) if number in mine]

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self.count == 1:
            return
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.strerror):
            print(f"deltalm-ds: error on rank {self.rank}: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exception(kind, error, trace)
        self._communicator.Abort(2 if isinstance(error, UserError | OSError) else 1)
