"""The three batch numbers, from the command line, the file and the number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deltalm_ds.errors import UserError

MICRO_BATCH_SIZE = 8
"""Samples of a micro-batch where nobody says a number."""


@dataclass(frozen=True)
class RequestedBatch:
    """What the command line says; None where it says nothing."""

    batch_size: int | None
    """Samples of a global batch."""
    micro_batch_size: int | None
    """Samples that a process computes at once."""
    default_batch_size: int = 32
    """Samples of a global batch where neither the command line nor the file says a number."""


@dataclass(frozen=True)
class BatchSizes:
    """One optimizer step."""

    global_batch: int
    """Samples, over all processes: exact, and independent of their number."""
    micro_batch: int
    """Samples of the largest micro-batch."""
    accumulation: int
    """Micro-batches of each process; a short one is computed with weight zero."""


def resolve_batch(
    path: object, requested: RequestedBatch, file: Mapping[str, int], world_size: int
) -> BatchSizes:
    """Fill in what `requested` and the `file` at `path` (its numbers by DeepSpeed's names) leave open.

    The global batch stays as it is when it cannot be split evenly: the accumulation is rounded up. Raises
    UserError where two of the given numbers exclude each other.
    """
    total = _agreed(path, "--batch-size", requested.batch_size, "train_batch_size", file)
    micro = _agreed(
        path, "--micro-batch-size", requested.micro_batch_size, "train_micro_batch_size_per_gpu", file
    )
    accumulation = file.get("gradient_accumulation_steps")
    if total is None:
        total = requested.default_batch_size
        if micro is not None and accumulation is not None:
            total = micro * accumulation * world_size
    if micro is None:
        return _without_micro_batch(path, total, accumulation, world_size)
    if micro > total:
        raise UserError(
            f"{path}: a micro-batch of {micro} samples is larger than the global batch of {total}: lower "
            "--micro-batch-size (train_micro_batch_size_per_gpu) or raise --batch-size (train_batch_size)"
        )
    needed = _ceil(total, micro * world_size)
    if accumulation not in (None, needed):
        raise UserError(
            f"{path}: gradient_accumulation_steps is {accumulation}, but {total} samples over {world_size} "
            f"processes in micro-batches of {micro} take {needed}: leave it out, it follows from the others"
        )
    return BatchSizes(total, micro, needed)


def _without_micro_batch(path: object, total: int, accumulation: int | None, world_size: int) -> BatchSizes:
    share = _ceil(total, world_size)
    if accumulation is None:
        micro = min(share, MICRO_BATCH_SIZE)
        return BatchSizes(total, micro, _ceil(total, micro * world_size))
    if accumulation > share:
        raise UserError(
            f"{path}: gradient_accumulation_steps is {accumulation}, but each of {world_size} processes has "
            f"only {share} of the {total} samples: lower it, or leave it out"
        )
    return BatchSizes(total, _ceil(share, accumulation), accumulation)


def _agreed(
    path: object, option: str, requested: int | None, key: str, file: Mapping[str, int]
) -> int | None:
    written = file.get(key)
    if requested is not None and written is not None and requested != written:
        raise UserError(
            f"{path}: {key} is {written}, but the command line says {option} {requested}: "
            f'give one of them (or write "{key}": "auto")'
        )
    return written if requested is None else requested


def _ceil(samples: int, parts: int) -> int:
    return -(-samples // parts)
