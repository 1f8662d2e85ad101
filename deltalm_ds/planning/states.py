"""Weights, gradients, optimizer states and buffers of a rank, as DeepSpeed 0.19 holds them in a step.

Four classes for its four implementations (training/deepspeed_schema.py): two here, where every rank has all
gradients, two in partitioned.py. `start` takes up what is there before a
step, with the optimizer's moments; then, for each micro-batch, `open` and `close` surround every module that
runs, `gradient` follows the backward pass of one, `end_backward` the whole; `update` is the optimizer's step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from deltalm_ds.planning.communication import STAGE_0_BUCKET, filled_buckets, flat_sizes
from deltalm_ds.planning.gathering import Visit
from deltalm_ds.planning.ledger import Ledger
from deltalm_ds.planning.shapes import ModelShape, Parameter
from deltalm_ds.planning.zero import GRADIENT_BYTES, ZeroSettings

MASTER_BYTES, MOMENT_BYTES = 4, 8
"""Of a number's fp32 copy, and of Adam's two moments of it."""


class States(Protocol):
    """One rank's, in a ledger."""

    def start(self) -> None:
        """Take up what is there before a step."""

    def open(self, visit: Visit) -> None:
        """A module is about to run."""

    def close(self, visit: Visit) -> None:
        """It has run."""

    def gradient(self, parameters: Iterable[Parameter]) -> None:
        """These gradients have been computed, in the weights' dtype."""

    def end_backward(self, is_last: bool) -> None:
        """A micro-batch is done; the last of a step?"""

    def update(self) -> None:
        """The optimizer's step."""


class Replicated:
    """Stage 0: everything on every rank."""

    def __init__(self, ledger: Ledger, shape: ModelShape, zero: ZeroSettings, num_ranks: int) -> None:
        self.ledger, self.shape, self.zero, self.num_ranks = ledger, shape, zero, num_ranks
        self._has_gradients = False

    def start(self) -> None:
        """Weights and moments, and in bf16 fp32 masters."""
        numbers = self.shape.num_parameters
        self.ledger.hold("weights", numbers * self.zero.weight_bytes)
        masters = MASTER_BYTES if self.zero.dtype != "fp32" else 0
        self.ledger.hold("optimizer", numbers * (masters + MOMENT_BYTES))

    def open(self, visit: Visit) -> None:
        """Weights are where they are needed."""

    def close(self, visit: Visit) -> None:
        """They stay."""

    def gradient(self, parameters: Iterable[Parameter]) -> None:
        """Kept in fp32; those of later micro-batches are added to it."""
        for parameter in parameters:
            if self._has_gradients:
                self.ledger.touch("gradients", parameter.size * self.zero.weight_bytes)
            else:
                self.ledger.hold("gradients", parameter.size * GRADIENT_BYTES)

    def end_backward(self, is_last: bool) -> None:
        """The last time all are reduced, out of flat copies."""
        self._has_gradients = True
        if is_last:
            sizes = [parameter.size for parameter in self.shape.parameters]
            largest = max(filled_buckets(sizes, STAGE_0_BUCKET))
            self.ledger.touch("buckets", largest * GRADIENT_BYTES)

    def update(self) -> None:
        """In place."""
        self.ledger.release("gradients", self.ledger.held("gradients"))


class PartitionedInBf16(Replicated):
    """Stage 1 in bf16: fp32 gradients of everything, masters and moments of a part (BF16_Optimizer)."""

    def start(self) -> None:
        """Flat bf16 weights, their gradients, which stay, flat fp32 sums, masters and moments of a part."""
        flat = sum(flat_sizes(self.shape, self.num_ranks))
        self.ledger.hold("weights", flat * self.zero.weight_bytes)
        self.ledger.hold("gradients", flat * GRADIENT_BYTES + self.shape.num_parameters * 2)
        self.ledger.hold("optimizer", flat // self.num_ranks * (MASTER_BYTES + MOMENT_BYTES))

    def gradient(self, parameters: Iterable[Parameter]) -> None:
        """Added to the bf16 gradients that are there."""
        for parameter in parameters:
            self.ledger.touch("gradients", parameter.size * self.zero.weight_bytes)

    def end_backward(self, is_last: bool) -> None:
        """bf16 gradients are added to the sums; the last time these are reduced."""
        largest = max(parameter.size for parameter in self.shape.parameters)
        self.ledger.touch("gradients", largest * GRADIENT_BYTES)
        if is_last:
            flats = flat_sizes(self.shape, self.num_ranks)
            if flats[0] <= STAGE_0_BUCKET:  # else each group by itself, without a copy
                self.ledger.touch("buckets", sum(flats) * GRADIENT_BYTES)

    def update(self) -> None:
        """On the rank's part of the sums, in place."""
