"""Every task has what the trainer and the scorer need."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
from made_tasks import WRITERS

from deltalm_ds.downstream.registry import TASKS, find_task
from deltalm_ds.downstream.task import Task
from deltalm_ds.errors import UserError

NAMES = (
    *("translation", "question-generation", "summarization", "cross-lingual-summarization", "data-to-text"),
    "zero-shot-summarization",
)
METRICS = {
    *("bleu", "chrf", "ter", "rouge", "rouge1", "rouge2", "rougeL", "bleu4-characters", "rouge-characters"),
}


def test_the_tasks_are_those_of_the_paper() -> None:
    assert set(TASKS) == set(NAMES) == set(WRITERS)
    assert all(find_task(name).name == name for name in NAMES)


def test_an_unknown_task_is_told_with_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        find_task("summarisation")
    assert "'summarisation' (did you mean summarization?)" in str(caught.value)
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_every_task_is_whole(task: Task) -> None:
    assert {task.metric, *task.other_metrics} <= METRICS
    assert task.metric not in task.other_metrics
    assert len(task.summary.splitlines()) == 1
    assert pickle.loads(pickle.dumps(task)) == copy.deepcopy(task) == task
    # What was published of the fine-tuning.
    for recipe in (task.recipe, task.small_recipe):
        assert (recipe.learning_rate, recipe.initial_learning_rate, recipe.warmup_steps) == (1e-4, 1e-7, 4000)
        assert (recipe.adam_betas, recipe.label_smoothing) == ((0.9, 0.98), 0.1)
    assert (task.recipe.batch_tokens, task.small_recipe.batch_tokens) == (4096 * 128, 4096 * 2)
    assert (task.search.beam, task.search.length_penalty) == (5, 1.0)
    assert (task.max_source_length, task.max_target_length) == (512, 512)


def test_a_task_with_a_broken_template_is_refused() -> None:
    with pytest.raises(UserError, match="template"):
        Task(name="x", summary="x", source_template="{a")


def test_the_documented_task_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "adding-a-task.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Task] = {}
    exec(code, names)
    assert names["TASK"].name == "simplification"
