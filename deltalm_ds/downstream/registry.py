"""The downstream tasks by name: the `TASK` of every module in `tasks/`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from deltalm_ds.downstream import tasks
from deltalm_ds.downstream.task import Task
from deltalm_ds.errors import UserError


def _tasks() -> dict[str, Task]:
    found: dict[str, Task] = {}
    for module in pkgutil.iter_modules(tasks.__path__, f"{tasks.__name__}."):
        task: Task = importlib.import_module(module.name).TASK
        assert task.name not in found, f"two tasks are called {task.name}"
        found[task.name] = task
    return found


TASKS: dict[str, Task] = _tasks()
"""All tasks, by name."""


def find_task(name: str) -> Task:
    """The task of a name. UserError for an unknown one, with those that there are."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"there is no task {name!r}{meant}: the tasks are {', '.join(TASKS)}")
