"""A run whose folder another run takes over while it trains: it records nothing and leaves no model after."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_runs import options, pretrain, records
from distributed import run_distributed

from deltalm_ds.training.resuming import claim

STEPS = 4


def pretrain_and_lose(cases, owner, name, number, folder):
    """`pretrain`, whose lease another process takes before a call of `owner.name`."""
    import importlib

    module, _, class_name = owner.rpartition(".")
    owner = getattr(importlib.import_module(f"deltalm_ds.training.{module}"), class_name)
    original, calls = getattr(owner, name), 0

    def replacement(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == number:
            claim(Path(folder))
        return original(*arguments, **named)

    setattr(owner, name, replacement)
    return pretrain(cases)


@pytest.mark.parametrize(
    ("owner", "name", "number", "steps", "validations"),
    [
        pytest.param("engine.Engine", "step", 3, [1, 2], [2], id="in a step"),
        pytest.param("validation.Validator", "run", 2, [1, 2, 3, 4], [2], id="in a validation"),
        pytest.param("engine.Engine", "full_weights", 1, [1, 2, 3, 4], [2, 4], id="gathering the model"),
    ],
)
def test_it_is_told_and_writes_no_more(
    tmp_path: Path,
    small_corpus: Path,
    owner: str,
    name: str,
    number: int,
    steps: list[int],
    validations: list[int],
) -> None:
    output = tmp_path / "run"
    cases = [options(small_corpus, output, steps=STEPS, **{"validate-every": 2, "text-samples": 1})]
    (rank,) = run_distributed(
        pretrain_and_lose,
        1,
        cases=cases,
        owner=owner,
        name=name,
        number=number,
        folder=str(output / "checkpoints"),
    )
    ((code, said),) = rank.value
    assert code == 2, said
    assert "writes no more" in said.splitlines()[-1], said
    assert [record["step"] for record in records(output, "train")] == steps
    assert [record["step"] for record in records(output, "validation")] == validations
    assert not (output / "model").exists()
