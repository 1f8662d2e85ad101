"""The goals: which kernel's problem, at what size, has to reach what, and how fast samples are to be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from attention_problems import attention
from problems import Problem, add_norm, gelu, linear_cross_entropy

DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Goal:
    """What one direction of a problem should reach; None: nothing is asked."""

    share_of_ceiling: float | None = None
    """Of the copy's bandwidth or of the matrix product's rate, both measured in the same run."""
    rate: float | None = None
    """In 10^12 operations a second."""
    share_of_full_length: float | None = None
    """Of the rate at full length, in the same run."""
    workspace: float | None = None
    """GiB at most, beside the results and an fp32 sum of the table's gradient."""
    times_as_fast: tuple[tuple[str, float], ...] = ()
    """As peers, by the beginning of their names; the fastest of those that match counts."""


@dataclass(frozen=True)
class Contest:
    """A problem and its goals."""

    problem: Problem
    forward: Goal
    backward: Goal | None = None


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    num_tokens: int
    norm_widths: tuple[int, ...]
    feed_forward_width: int
    num_sequences: int
    num_heads: int
    longest: int
    shortest: tuple[int, ...]
    """Of ragged batches, whose lengths are uniform up to `longest`."""
    target_length: int
    num_labels: int
    width: int
    num_rows: int
    num_parameters: int
    matrix_size: int


FULL = Sizes(
    num_tokens=32 * 512,
    norm_widths=(768, 1024),
    feed_forward_width=3072,
    num_sequences=32,
    num_heads=12,
    longest=512,
    shortest=(128, 32),
    target_length=114,
    num_labels=16_384,
    width=768,
    num_rows=250_104,
    num_parameters=362_981_376,
    matrix_size=8192,
)
"""DeltaLM-base."""

TINY = Sizes(
    num_tokens=8,
    norm_widths=(64,),
    feed_forward_width=64,
    num_sequences=2,
    num_heads=1,
    longest=20,
    shortest=(5,),
    target_length=6,
    num_labels=8,
    width=16,
    num_rows=64,
    num_parameters=100,
    matrix_size=16,
)
"""To try the script out."""


@dataclass(frozen=True)
class DataGoals:
    """What benchmarks/data.py asks for."""

    samples_per_second: int = 20_000
    """Of 512 tokens, on one core."""
    times_collator: float = 3.0
    """As fast as the fastest NumPy collator."""
    times_megatron: float = 40.0
    """As fast as megatron-core's T5 dataset."""
    consumed_samples_per_second: int = 1000
    """By a simulated GPU."""
    share_waited: float = 0.01
    """Of its time."""


DATA = DataGoals()


def contests(device: torch.device, sizes: Sizes) -> Iterator[Contest]:
    """All but Adam, whose optimizer is no function of inputs; made one at a time, for memory's sake."""
    for width in sizes.norm_widths:
        yield Contest(
            add_norm(device, DTYPE, sizes.num_tokens, width),
            Goal(0.90, times_as_fast=(("torch eager", 2.0), ("torch.compile", 1.15))),
            Goal(0.82, times_as_fast=(("torch eager", 2.0), ("F.layer_norm", 1.6))),
        )
    yield Contest(
        gelu(device, DTYPE, sizes.num_tokens, sizes.feed_forward_width),
        Goal(0.92, times_as_fast=(("torch.compile", 1.0),)),
        Goal(0.88, times_as_fast=(("torch.compile", 1.0),)),
    )
    yield from _attention_contests(device, sizes)
    yield Contest(
        linear_cross_entropy(device, DTYPE, sizes.num_labels, sizes.width, sizes.num_rows),
        Goal(rate=550, workspace=2, times_as_fast=(("torch eager", 1.7), ("Liger", 3.0))),
    )


def _attention_contests(device: torch.device, sizes: Sizes) -> Iterator[Contest]:
    count, heads, longest = sizes.num_sequences, sizes.num_heads, sizes.longest
    full = [longest] * count
    yield Contest(
        attention(device, DTYPE, f"attention {longest} × {longest}", full, full, heads),
        Goal(rate=380, times_as_fast=(("SDPA", 1.05),)),
        Goal(rate=290, times_as_fast=(("SDPA", 1.05),)),
    )
    for shortest, ratio in zip(sizes.shortest, (2.0, 2.4), strict=False):
        generator = torch.Generator().manual_seed(shortest)
        lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
        lengths[0] = longest
        yield Contest(
            attention(device, DTYPE, f"attention, lengths {shortest}..{longest}", lengths, lengths, heads),
            Goal(share_of_full_length=0.85, times_as_fast=(("SDPA", ratio),)),
            Goal(share_of_full_length=0.85, times_as_fast=(("SDPA", ratio),)),
        )
    targets = [sizes.target_length] * count
    name = f"attention, causal {sizes.target_length}"
    yield Contest(
        attention(device, DTYPE, name, targets, targets, heads, causal=True, is_bound_by_memory=True),
        Goal(0.70, times_as_fast=(("SDPA", 1.5),)),
        Goal(0.70, times_as_fast=(("SDPA", 1.5),)),
    )
    name = f"attention, cross {sizes.target_length} × {longest}"
    yield Contest(
        attention(device, DTYPE, name, targets, full, heads, is_bound_by_memory=True),
        Goal(0.65, times_as_fast=(("SDPA", 1.3),)),
        Goal(0.65, times_as_fast=(("SDPA", 1.3),)),
    )
