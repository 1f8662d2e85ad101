"""How the ranks of a job tell each other of a hang: through torch.distributed's key-value store.

The store is served by rank 0's process in C++, so that it answers while that rank's Python hangs, and every
rank has a connection of its own. Calls raise RuntimeError once the server is gone, and may wait for ever
where its host stands still: make them in a thread that nobody has to join.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from deltalm_ds.training.hang_report import LEFT, Standing

_SECONDS_BETWEEN_LOOKS = 0.2


class HangStore:
    """One rank's side of the talk.

    Args:
        store: cloned, for this rank's connection.
        name: of this talk, the same on all ranks.
        rank: of this process.
        world_size: all ranks.
    """

    def __init__(self, store: dist.Store, name: str, rank: int, world_size: int) -> None:
        source: Any = store  # torch's stubs do not know clone()
        self._store = dist.PrefixStore(name, source.clone())
        self._rank, self._world_size = rank, world_size

    def post(self, standing: Standing) -> None:
        """Let the others know how far this rank has come."""
        self._store.set(f"standing/{self._rank}", json.dumps(dataclasses.asdict(standing)))

    def leave(self, standing: Standing) -> None:
        """Tell that this rank goes, and will answer no alarm."""
        self.post(dataclasses.replace(standing, phase=LEFT, place=""))
        self._store.add("answers", 1)

    def alarm(self) -> str | None:
        """The name of the hang, once a rank has raised the alarm."""
        return self._store.get("alarm").decode() if self._store.check(["alarm"]) else None

    def raise_alarm(self, name: str) -> str:
        """Have all ranks leave their stacks and end; returns the name that the first caller gave the hang."""
        return self._store.compare_set("alarm", "", name).decode()

    def answer(self, standing: Standing) -> None:
        """Tell that this rank has left all it can."""
        self.post(dataclasses.replace(standing, has_answered=True))
        self._store.add("answers", 1)

    def report(self, tell: Callable[[dict[int, Standing]], object], wait_seconds: float) -> None:
        """Call `tell` with all standings on one rank; others return when it is done.

        That is rank 0, once all have answered or `wait_seconds` are over; where rank 0 does not, any other
        after as long again.
        """
        self._wait(lambda: self._store.add("answers", 0) >= self._world_size, wait_seconds)
        if self._rank != 0 and self._wait(lambda: self._store.check(["told"]), wait_seconds):
            return
        if self._store.add("tellers", 1) == 1:
            tell(self._standings())
            self._store.set("told", "")
            time.sleep(2 * _SECONDS_BETWEEN_LOOKS)  # the store goes with rank 0: the others leave first

    def _standings(self) -> dict[int, Standing]:
        standings = {}
        for rank in range(self._world_size):
            key = f"standing/{rank}"
            if not self._store.check([key]):
                continue
            standing = Standing(**json.loads(self._store.get(key)))
            if not standing.has_answered and standing.phase != LEFT:
                idle = standing.idle_seconds + max(0.0, time.time() - standing.posted_at)
                standing = dataclasses.replace(standing, idle_seconds=idle)
            standings[rank] = standing
        return standings

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return True
