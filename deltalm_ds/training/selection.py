"""The best models of a run by a score of its validations: kept, counted for early stopping, averaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from deltalm_ds.files import put_folder
from deltalm_ds.weights import OnDemand
from deltalm_ds.weights.own import WEIGHTS_FILE

SaveModel = Callable[[dict[str, torch.Tensor], Path], None]

LOWER_IS_BETTER = frozenset({"loss", "ter"})
"""Scores of which the lowest is the best."""


class BestModels:
    """Model folders of the best validations, `step_N` in `folder`, and whether it is time to stop.

    Of equal scores the earlier validation is the better one. What is decided depends on scores alone, which
    all ranks know; files are rank 0's.

    Args:
        folder: where the models are kept.
        metric: the score, by its name in a validation report.
        num_kept: how many models are kept, to be averaged in the end.
        patience: validations without a better best one after which to stop; None for never.
    """

    def __init__(self, folder: Path, metric: str, *, num_kept: int, patience: int | None) -> None:
        self.folder, self.metric = folder, metric
        self._num_kept, self._patience = num_kept, patience
        self._sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        self.kept: list[tuple[float, int]] = []
        """Score and step of the best validations, the best first."""
        self.num_without_improvement = 0
        """Validations since the best one."""

    def observe(self, step: int, score: float) -> bool:
        """Take in a validation; whether its model is among the best, and is to be kept."""
        is_best = not self.kept or self._sign * score > self._sign * self.kept[0][0]
        self.num_without_improvement = 0 if is_best else self.num_without_improvement + 1
        # A validation that a resumed run repeats takes its own place again.
        others = [entry for entry in self.kept if entry[1] != step]
        ranked = sorted([*others, (score, step)], key=lambda entry: (-self._sign * entry[0], entry[1]))
        self.kept = ranked[: self._num_kept]
        return (score, step) in self.kept

    @property
    def should_stop(self) -> bool:
        """Whether the score has not risen for `patience` validations."""
        return self._patience is not None and self.num_without_improvement >= self._patience

    def keep(self, step: int, weights: dict[str, torch.Tensor], save_model: SaveModel) -> None:
        """Write the model of the last validation, and remove those that are no longer among the best."""
        aside = self.folder / f"step_{step}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        save_model(weights, aside)
        put_folder(aside, self._path(step))
        wanted = {self._path(step).name for _, step in self.kept}
        for path in self.folder.glob("step_*"):
            if path.name not in wanted:
                shutil.rmtree(path)

    def averaged(self) -> Any:
        """The mean of the kept models' weights, summed in fp64; with one, its weights themselves.

        A Mapping[str, Tensor], each tensor made when it is read, from the kept folders.
        """
        paths = [self._path(step) / WEIGHTS_FILE for _, step in self.kept]

        def make(name: str) -> torch.Tensor:
            total: torch.Tensor | float = 0.0
            for path in paths:
                with safe_open(path, framework="pt") as file:
                    total = total + file.get_tensor(name).double()
            assert isinstance(total, torch.Tensor)
            return (total / len(paths)).float()

        with safe_open(paths[0], framework="pt") as file:
            return OnDemand(file.keys(), make)

    def describe(self) -> str:
        """What the averaged model is made of."""
        steps = ", ".join(f"step {step:,} ({self.metric} {score:.2f})" for score, step in self.kept)
        return f"the mean of {steps}" if len(self.kept) > 1 else f"that of {steps}"

    def to_state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"kept": self.kept, "num_without_improvement": self.num_without_improvement}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `to_state` gave."""
        self.kept = [(float(score), int(step)) for score, step in state["kept"]]
        self.num_without_improvement = int(state["num_without_improvement"])

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step}"
