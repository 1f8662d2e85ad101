"""By how much the nodes' clocks differ: every node asks rank 0 for the time (Cristian's method)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TypedDict

from deltalm_ds.diagnosing.meeting import Meeting

_NUM_QUESTIONS = 5
_SECONDS_BETWEEN_LOOKS = 0.0005


class Clock(TypedDict):
    """A node's clock against rank 0's."""

    offset_seconds: float
    """This clock's time less rank 0's at the same moment."""
    uncertainty_seconds: float
    """Half the time that the answer took: the offset is right to within it."""


def now() -> float:
    """The time of day on this node, in seconds."""
    return time.time()


def compare_clocks(meeting: Meeting, asking: Iterable[int]) -> Clock | None:
    """Rank 0 answers the ranks `asking`, one of each other node. They get their offset, others nothing."""
    asking = list(asking)
    if meeting.is_first:
        _answer(meeting, asking)
        return Clock(offset_seconds=0.0, uncertainty_seconds=0.0)
    return _ask(meeting) if meeting.rank in asking else None


def _ask(meeting: Meeting) -> Clock:
    best: Clock | None = None
    for number in range(_NUM_QUESTIONS):
        asked = now()
        meeting.post(f"time asked/{meeting.rank}/{number}", None)
        answer = f"time/{meeting.rank}/{number}"
        while not meeting.has(answer):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        heard = now()
        uncertainty = (heard - asked) / 2
        if best is None or uncertainty < best["uncertainty_seconds"]:
            offset = (asked + heard) / 2 - meeting.read(answer)
            best = Clock(offset_seconds=offset, uncertainty_seconds=uncertainty)
    assert best is not None
    return best


def _answer(meeting: Meeting, asking: list[int]) -> None:
    """To all in turn, so that one who never asks holds up no other."""
    number_of = dict.fromkeys(asking, 0)
    while number_of:
        for rank, number in list(number_of.items()):
            if meeting.has(f"time asked/{rank}/{number}"):
                meeting.post(f"time/{rank}/{number}", now())
                number_of[rank] += 1
                if number_of[rank] == _NUM_QUESTIONS:
                    del number_of[rank]
        time.sleep(_SECONDS_BETWEEN_LOOKS)
