"""Activation checkpointing: trade a second forward of a layer for its activations' memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deltalm_ds.errors import UserError


@dataclass(frozen=True)
class Recomputation:
    """Which layers keep only their input and run again in the backward pass."""

    every: int = 0
    """0: none; 1: every layer; n: every n-th layer."""

    def __post_init__(self) -> None:
        if self.every < 0:
            raise UserError(f"activation checkpointing every {self.every} layers: give 0 (off) or more")

    def call(self, number: int, layer: nn.Module, *inputs: object) -> Tensor:
        """layer(*inputs); layer `number` of its stack."""
        if not self.every or number % self.every or not torch.is_grad_enabled():
            return layer(*inputs)
        # Dropout bits come from counters, so there is no generator state to restore.
        return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
