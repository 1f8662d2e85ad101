"""Independent tasks shared by ranks and their worker processes, each marked by a file when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltalm_ds.files import write_bytes_atomically
from deltalm_ds.processes import Workers
from deltalm_ds.progress import Progress
from deltalm_ds.ranks import Ranks


@dataclass(frozen=True)
class Task:
    """Something to do once."""

    done: Path
    """The file that is there when it is done: its result, or an empty one made after it."""
    action: Callable[[], object]
    """What is to be done; picklable. It can be killed and done again."""
    cost: int
    """How much of it there is, in bytes."""


def run_tasks(what: str, tasks: Sequence[Task], ranks: Ranks, workers: Workers) -> None:
    """Do all tasks that are not done yet; returns when all ranks are through."""
    missing = ranks.from_first(
        lambda: [number for number, task in enumerate(tasks) if not task.done.is_file()]
    )
    left = [tasks[number] for number in missing]
    total = sum(task.cost for task in tasks)
    with Progress(what, total, ranks, total - sum(task.cost for task in left)) as progress:
        for cost in workers.map(_do, ranks.share(left, lambda task: task.cost)):
            progress.update(cost)


def _do(task: Task) -> int:
    task.done.parent.mkdir(parents=True, exist_ok=True)
    task.action()
    if not task.done.is_file():
        write_bytes_atomically(task.done, b"")
    return task.cost
