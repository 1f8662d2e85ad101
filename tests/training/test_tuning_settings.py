"""What fills in the options of a fine-tuning run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltalm_ds.commands import parse
from deltalm_ds.downstream.registry import find_task
from deltalm_ds.errors import UserError
from deltalm_ds.training.tuning_settings import SMALL_EXAMPLES, FinetuneSettings

TASK = find_task("translation")
ZERO_SHOT = find_task("zero-shot-summarization")


def settings(**changes: Any) -> FinetuneSettings:
    return FinetuneSettings(**{"task": "translation", "data": (Path("data"),), **changes})


@pytest.mark.parametrize(
    ("recipe", "num_examples", "batch_tokens"),
    [
        (None, SMALL_EXAMPLES - 1, 2 * 4096 * 2),
        (None, SMALL_EXAMPLES, 2 * 4096 * 128),
        ("published", 10, 2 * 4096 * 128),
        ("small", 10**9, 2 * 4096 * 2),
    ],
)
def test_the_recipe_follows_from_the_amount_of_data(
    recipe: Any, num_examples: int, batch_tokens: int
) -> None:
    complete = settings(recipe=recipe).complete(TASK, num_examples)
    assert complete.batch_tokens == batch_tokens
    assert complete.optimizer_settings.learning_rate == 1e-4
    assert complete.optimizer_settings.warmup_steps == 4000
    assert complete.optimizer_settings.adam_beta2 == 0.98
    assert complete.optimizer_settings.schedule == "inverse-square-root"
    assert (complete.label_smoothing, complete.beam, complete.metric) == (0.1, 5, "bleu")
    assert (complete.max_source_length, complete.max_target_length) == (512, 512)


def test_options_go_before_the_recipe() -> None:
    given = parse(
        FinetuneSettings,
        "finetune",
        [
            *("--task", "translation", "--data", "x", "--steps", "7", "--batch-tokens", "99"),
            *("--patience", "0", "--metric", "chrf", "--beam", "2", "--learning-rate", "0.5"),
            *("--warmup-steps", "0", "--max-source-length", "40"),
        ],
    ).complete(TASK, 10)
    assert (given.steps, given.batch_tokens, given.patience, given.metric) == (7, 99, 0, "chrf")
    assert (given.beam, given.max_source_length, given.max_target_length) == (2, 40, 512)
    assert given.optimizer_settings.learning_rate == 0.5
    assert given.optimizer_settings.warmup_steps == 0
    assert given.search_of(TASK).beam == 2
    assert given.search_of(TASK).max_length_a == TASK.search.max_length_a


def test_epochs_leave_the_steps_open() -> None:
    assert settings(epochs=2.0).complete(TASK, 10).steps is None
    assert settings().complete(TASK, 10).steps == TASK.small_recipe.steps


def test_what_a_task_freezes_can_be_freed() -> None:
    given = settings(task="zero-shot-summarization")
    assert given.complete(ZERO_SHOT, 10).freeze == ("embedding.*", "decoder.*")
    assert settings(task="zero-shot-summarization", freeze=()).complete(ZERO_SHOT, 10).freeze == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_tokens": 0}, "--batch-tokens must be at least 1"),
        ({"average": 0}, "--average must be at least 1"),
        ({"patience": -1}, "--patience must be at least 0"),
        ({"epochs": 0.0}, "--epochs must be above 0"),
        ({"temperature": 0.5}, "--temperature must be at least 1"),
        ({"from_": Path("a"), "preset": "tiny"}, "--preset is for new models"),
        ({"resume": True}, "--resume needs --output"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(**changes)
