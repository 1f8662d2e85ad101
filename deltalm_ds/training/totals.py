"""Sums over the steps since the last record, the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.data.batches import MicroBatch
from deltalm_ds.data.samples import GroupName
from deltalm_ds.ops import IGNORE, CrossEntropy

_COUNTS = ("samples", "source_tokens", "target_tokens", "flops", "loss", "seconds", "waited_seconds")


class Totals:
    """Losses by group (objective and language) and counts, in fp64 on the device: no step waits for them."""

    def __init__(self, groups: Sequence[GroupName], device: torch.device) -> None:
        self.groups = groups
        # Row 0: summed negative log-likelihood of each group; row 1: its labelled tokens.
        self.by_group = torch.zeros(2, len(groups), dtype=torch.float64, device=device)
        self.counts = torch.zeros(len(_COUNTS), dtype=torch.float64, device=device)

    def add_losses(self, batch: MicroBatch[Tensor], sums: CrossEntropy) -> None:
        """Add one micro-batch's losses to their groups."""
        lengths = batch.target_cumulative_lengths.diff()
        group_of_token = torch.repeat_interleave(batch.groups, lengths, output_size=len(batch.labels))
        labelled = batch.labels != IGNORE
        per_token = torch.stack([sums.token_negative_log_likelihood.double(), labelled.double()])
        self.by_group.index_add_(1, group_of_token, per_token)
        self.counts[_COUNTS.index("loss")] += sums.loss

    def add_counts(self, **counts: float | Tensor) -> None:
        """Add to counts by name."""
        for name, value in counts.items():
            self.counts[_COUNTS.index(name)] += value

    def add(self, other: Totals) -> None:
        """Add another's sums."""
        self.by_group += other.by_group
        self.counts += other.counts

    def tensors(self) -> tuple[Tensor, Tensor]:
        """The sums, to be reduced over ranks in place."""
        return self.by_group, self.counts

    def count(self, name: str) -> float:
        """One count."""
        return float(self.counts[_COUNTS.index(name)])

    def counts_of(self, *names: str) -> Tensor:
        """A copy of some counts, float64 [names]."""
        return self.counts[[_COUNTS.index(name) for name in names]]

    def losses(self) -> dict[str, float]:
        """Negative log-likelihood in nats a token: of all, by objective and by language."""
        nll, tokens = self.by_group.tolist()
        sums: dict[str, list[float]] = {}
        for group, group_nll, group_tokens in zip(self.groups, nll, tokens, strict=True):
            for name in ("nll", f"nll/{group.objective}", f"nll/{group.language}"):
                entry = sums.setdefault(name, [0.0, 0.0])
                entry[0] += group_nll
                entry[1] += group_tokens
        return {name: total / count for name, (total, count) in sums.items() if count}

    def to_state(self) -> dict[str, Any]:
        """Names and plain numbers for a checkpoint, exact."""
        return {
            "groups": [list(group) for group in self.groups],
            "by_group": self.by_group.tolist(),
            "counts": self.counts.tolist(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `to_state`; sums of other groups, or of unnamed ones, begin anew."""
        if state.get("groups") == [list(group) for group in self.groups]:
            self.by_group.copy_(torch.tensor(state["by_group"], dtype=torch.float64))
            self.counts.copy_(torch.tensor(state["counts"], dtype=torch.float64))
