"""Every process's share of a model that no process has whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import run_distributed

from deltalm_ds.weights import save_own

ZERO_3 = {"stage": 3, "stage3_param_persistence_threshold": 0}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("fp32", ZERO_3),
    ("bf16", ZERO_3),
    ("fp16", {"stage": 3, "stage3_param_persistence_threshold": 1000}),
    ("bf16", ZERO_3 | {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}),
    ("bf16", ZERO_3 | {"sub_group_size": 5000}),
    ("bf16", {"stage": 2}),
    ("bf16", {"stage": 0}),
]


def differences(folder: str, cases: list[tuple[str, dict[str, Any]]], start: str | None) -> list[list[str]]:
    """Where an engine's masters, module or gathered weights are not the given ones, for each case."""
    import deepspeed
    from test_engine import made_engine, made_model

    from deltalm_ds.training.distributed import join_processes
    from deltalm_ds.weights import load_pretrained

    join_processes()
    given = made_model().state_dict()
    found = []
    for dtype, zero in cases:
        weights = None if start is None else load_pretrained(start).weights
        world_size = dist.get_world_size()
        engine = made_engine(
            Path(folder), zero["stage"], dtype, 1, world_size, weights=weights, zero_optimization=zero
        )
        wrong = []
        computed_in = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
        parameters = dict(engine.module.named_parameters())
        if parameters.keys() != given.keys():
            wrong.append("names")
        for name, parameter in parameters.items():
            with deepspeed.zero.GatheredParameters([parameter], enabled=zero["stage"] == 3):
                if not torch.equal(parameter, given[name].to(computed_in)):
                    wrong.append(f"module {name}")
        gathered = engine.full_weights()
        if gathered.keys() != (given.keys() if dist.get_rank() == 0 else set()):
            wrong.append("gathered names")
        wrong += [
            f"gathered {name}" for name, tensor in gathered.items() if not torch.equal(tensor, given[name])
        ]
        found.append(wrong)
        engine.deepspeed.destroy()
    return found


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_new_weights_are_those_of_a_whole_model(num_processes: int, tmp_path: Path) -> None:
    outcomes = run_distributed(differences, num_processes, folder=str(tmp_path), cases=CASES, start=None)
    for outcome in outcomes:
        assert outcome.value == [[] for _ in CASES]


def test_weights_of_a_folder_too(tmp_path: Path) -> None:
    from test_engine import made_model

    save_own(made_model(), tmp_path / "start")
    start = str(tmp_path / "start")
    outcomes = run_distributed(differences, 2, folder=str(tmp_path), cases=CASES[:2], start=start)
    for outcome in outcomes:
        assert outcome.value == [[], []]


def first_loss(folder: str, zero: dict[str, Any]) -> float:
    """Summed over all processes, of a step with dropout."""
    from test_engine import made_engine, made_samples, run_step

    from deltalm_ds.training.distributed import join_processes

    join_processes()
    engine = made_engine(Path(folder), 3, "fp32", 1, dist.get_world_size(), zero_optimization=zero)
    _, losses = run_step(engine, made_samples(), 1)
    total = torch.stack([loss.loss for loss in losses]).sum()
    dist.all_reduce(total)
    return float(total)


def test_groups_of_processes_that_hold_second_parts(tmp_path: Path) -> None:
    with_groups = ZERO_3 | {"zero_hpz_partition_size": 2}
    (loss, *_), (expected, *_) = (
        run_distributed(first_loss, num_processes, folder=str(tmp_path), zero=zero)
        for num_processes, zero in ((4, with_groups), (2, ZERO_3))
    )
    assert loss.value == pytest.approx(expected.value, rel=1e-6)
