"""The downstream tasks by name."""

from __future__ import annotations

import difflib

from deltalm_ds.downstream.task import Task
from deltalm_ds.downstream.tasks import (
    cross_lingual_summarization,
    data_to_text,
    question_generation,
    summarization,
    translation,
    zero_shot_summarization,
)
from deltalm_ds.errors import UserError

_MODULES = (
    translation,
    question_generation,
    summarization,
    cross_lingual_summarization,
    data_to_text,
    zero_shot_summarization,
)
TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in _MODULES}
"""All tasks, by name."""


def find_task(name: str) -> Task:
    """The task of a name. UserError for an unknown one, with those that there are."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise UserError(f"there is no task {name!r}{meant}: the tasks are {', '.join(TASKS)}")
