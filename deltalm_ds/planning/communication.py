"""What a rank sends and receives in a step: the collectives that DeepSpeed 0.19 calls, with their sizes.

Bytes sent are those of ring algorithms, which move the least: of n ranks each sends 2 (n - 1) / n of what is
all-reduced, (n - 1) / n of what is reduce-scattered or, gathered, all-gathered, and all of what is reduced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from deltalm_ds.planning.gathering import persistent, replay
from deltalm_ds.planning.shapes import ModelShape, Parameter
from deltalm_ds.planning.zero import GRADIENT_BYTES, ZeroSettings

Operation = Literal["all_reduce", "reduce", "reduce_scatter", "all_gather"]
When = Literal["forward", "backward", "boundary", "update"]
"""boundary: behind the last backward pass of a step, before the update."""

STAGE_0_BUCKET = 500_000_000
"""DeepSpeed's MEMORY_OPT_ALLREDUCE_SIZE, in numbers."""


@dataclass(frozen=True)
class Collective:
    """One call, by all ranks."""

    operation: Operation
    when: When
    num_bytes: float
    """Of what is reduced, or of what has been gathered: the larger side."""

    def sent_bytes(self, num_ranks: int) -> float:
        """By each rank."""
        if num_ranks == 1:
            return 0.0
        share = {"all_reduce": 2.0, "reduce": num_ranks / (num_ranks - 1)}.get(self.operation, 1.0)
        return share * (num_ranks - 1) / num_ranks * self.num_bytes


@dataclass(frozen=True)
class StepCommunication:
    """All calls of an optimizer step that move parameters or gradients."""

    of_micro_step: tuple[Collective, ...]
    """In each micro-batch."""
    of_step: tuple[Collective, ...]
    """Once a step."""
    num_micro_steps: int

    def calls(self) -> Iterator[Collective]:
        """One after another."""
        for _ in range(self.num_micro_steps):
            yield from self.of_micro_step
        yield from self.of_step

    def sent_bytes(self, num_ranks: int) -> float:
        """By each rank, over the whole step."""
        return sum(call.sent_bytes(num_ranks) for call in self.calls())


def communication_of(
    shape: ModelShape, zero: ZeroSettings, num_ranks: int, num_micro_steps: int, every: int
) -> StepCommunication:
    """The calls of a step.

    `every`: every n-th layer is recomputed, for which ZeRO-3 may gather it once more. A single rank reduces
    too, which moves nothing.
    """
    if zero.stage == 3:
        # A rank by itself has all weights.
        in_passes = tuple(_gathers(shape, zero, num_ranks, every) if num_ranks > 1 else ())
        after = tuple(
            Collective("all_gather", "update", padded_size(parameter, num_ranks) * zero.weight_bytes)
            for parameter in (persistent(shape, zero) if num_ranks > 1 else ())
        )
        return StepCommunication((*in_passes, *_scatters(shape, zero, num_ranks)), after, num_micro_steps)
    reductions = tuple(_reductions(shape, zero))
    gathers = tuple(
        Collective("all_gather", "update", group * zero.weight_bytes)
        for group in (flat_sizes(shape, num_ranks) if zero.stage else ())
    )
    if zero.stage == 2:
        return StepCommunication(reductions, gathers, num_micro_steps)
    return StepCommunication((), (*reductions, *gathers), num_micro_steps)


def padded_size(parameter: Parameter, num_ranks: int) -> int:
    """Numbers of a parameter whose ranks have equal parts."""
    return -(-parameter.size // num_ranks) * num_ranks


def flat_sizes(shape: ModelShape, num_ranks: int) -> list[int]:
    """Numbers of each optimizer group, laid out flat and padded so that parts begin at 4 bytes in bf16."""
    unit = 2 * num_ranks
    return [-(-sum(p.size for p in group) // unit) * unit for group in shape.optimizer_groups]


def filled_buckets(sizes: list[int], bucket_size: int) -> list[int]:
    """Numbers in each bucket when `sizes` come one after another and none may exceed it but alone."""
    buckets: list[int] = []
    filled = 0
    for size in sizes:
        if filled and filled + size > bucket_size:
            buckets.append(filled)
            filled = 0
        filled += size
    return [*buckets, filled] if filled else buckets


def _reductions(shape: ModelShape, zero: ZeroSettings) -> Iterator[Collective]:
    operation: Operation = "reduce" if zero.reduces_to_owner and zero.stage else "all_reduce"
    when: When = "backward" if zero.stage == 2 and zero.overlaps else "boundary"
    bucket_size = zero.reduce_bucket if zero.path == "stages 1 and 2" else STAGE_0_BUCKET
    sizes = [parameter.size for parameter in shape.parameters]
    for filled in filled_buckets(sizes, bucket_size):
        yield Collective(operation, when, filled * GRADIENT_BYTES)


def _scatters(shape: ModelShape, zero: ZeroSettings, num_ranks: int) -> Iterator[Collective]:
    sizes = [padded_size(parameter, num_ranks) for parameter in reversed(shape.parameters)]
    for filled in filled_buckets(sizes, zero.reduce_bucket):
        yield Collective("reduce_scatter", "backward", filled * GRADIENT_BYTES)


def _gathers(shape: ModelShape, zero: ZeroSettings, num_ranks: int, every: int) -> Iterator[Collective]:
    scenes, _ = replay(shape.config, zero, every)
    for scene in scenes:
        for change in scene.before:
            if change.what == "gather":
                numbers = sum(padded_size(parameter, num_ranks) for parameter in change.parameters)
                when: When = "forward" if scene.visit.passing == "forward" else "backward"
                yield Collective("all_gather", when, numbers * zero.weight_bytes)
