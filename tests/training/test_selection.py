"""Keeping the models of the best validations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deltalm_ds.training.selection import BestModels

WEIGHTS = {step: {"a": torch.full((3,), float(step)), "b": torch.tensor([step / 3.0])} for step in range(60)}


def save(weights: dict[str, torch.Tensor], folder: Path) -> None:
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors")


def validate(best: BestModels, step: int, score: float) -> bool:
    is_kept = best.observe(step, score)
    if is_kept:
        best.keep(step, WEIGHTS[step], save)
    return is_kept


def folders(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.iterdir())


def test_the_best_are_kept_and_averaged(tmp_path: Path) -> None:
    best = BestModels(tmp_path, "bleu", num_kept=2, patience=None)
    kept = [validate(best, step, score) for step, score in ((10, 5.0), (20, 7.0), (30, 4.0), (40, 6.0))]
    assert kept == [True, True, False, True]
    assert best.kept == [(7.0, 20), (6.0, 40)]
    assert folders(tmp_path) == ["step_20", "step_40"]
    assert load_file(tmp_path / "step_40" / "model.safetensors")["a"].tolist() == [40.0] * 3
    averaged = best.averaged()
    assert set(averaged) == {"a", "b"}
    assert averaged["a"].tolist() == [30.0] * 3
    assert averaged["b"].item() == pytest.approx(10, abs=1e-6)
    assert averaged["b"].dtype == torch.float32
    assert best.describe() == "the mean of step 20 (bleu 7.00), step 40 (bleu 6.00)"


def test_of_equal_scores_the_earlier_is_better(tmp_path: Path) -> None:
    best = BestModels(tmp_path, "bleu", num_kept=1, patience=3)
    assert validate(best, 10, 5.0)
    assert not validate(best, 20, 5.0)
    assert (best.kept, best.num_without_improvement) == ([(5.0, 10)], 1)


@pytest.mark.parametrize(("metric", "scores"), [("bleu", (1, 3, 2, 3, 2.9)), ("loss", (3, 1, 2, 1, 1.1))])
def test_it_is_time_to_stop_without_improvement(
    metric: str, scores: tuple[float, ...], tmp_path: Path
) -> None:
    best = BestModels(tmp_path, metric, num_kept=1, patience=3)
    stops = []
    for step, score in enumerate(scores):
        validate(best, step, score)
        stops.append(best.should_stop)
    assert stops == [False, False, False, False, True]
    assert best.kept[0][1] == 1


def test_a_resumed_run_goes_on_and_may_repeat_a_validation(tmp_path: Path) -> None:
    whole = BestModels(tmp_path / "whole", "bleu", num_kept=2, patience=9)
    for step, score in ((10, 5.0), (20, 7.0), (30, 6.0)):
        validate(whole, step, score)
    first = BestModels(tmp_path / "cut", "bleu", num_kept=2, patience=9)
    validate(first, 10, 5.0)
    state = first.to_state()
    validate(first, 20, 7.0)  # after the checkpoint, and lost with the process
    again = BestModels(tmp_path / "cut", "bleu", num_kept=2, patience=9)
    again.load_state(state)
    for step, score in ((20, 7.0), (30, 6.0)):
        validate(again, step, score)
    assert again.to_state() == whole.to_state()
    assert folders(tmp_path / "cut") == folders(tmp_path / "whole")
