"""What a run will read of every source: `pretrain --plan-data`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deltalm_ds.data.mixture import BLOCK_SIZE
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.schedule import RunLength
from deltalm_ds.tables import format_table
from deltalm_ds.text.printable import printable

_KINDS = ("monolingual", "pairs")


def describe_plan(reader: SampleReader, run: RunLength) -> str:
    """A table of the samples and epochs that every source gets over a run, the most repeated first."""
    draws = reader.order.num_draws(run.num_samples)
    items = reader.order.num_items
    epochs = draws / np.maximum(items, 1)
    phases = reader.phases
    shares = phases.quotas / BLOCK_SIZE
    headings = ["share"] if len(shares) == 1 else [f"from {step:,}" for step in _first_steps(reader, run)]
    rows = [("source", "tokens", "items", *headings, "samples", "epochs", "")]
    for index in np.argsort(-epochs, kind="stable").tolist():
        source = reader.sources[index]
        rows.append(
            (
                printable(source.name),
                f"{source.num_tokens:,}",
                f"{items[index]:,}",
                *(f"{share:.3%}" for share in shares[:, index]),
                f"{draws[index]:,}",
                f"{epochs[index]:.2f}",
                _note(reader, index),
            )
        )
    for kind in _KINDS:
        here = np.array([source.kind == kind for source in reader.sources])
        if here.any():
            rows.append(
                (
                    kind,
                    f"{sum(source.num_tokens for source in reader.sources if source.kind == kind):,}",
                    f"{items[here].sum():,}",
                    *(f"{share:.3%}" for share in shares[:, here].sum(axis=1)),
                    f"{draws[here].sum():,}",
                    f"{draws[here].sum() / max(items[here].sum(), 1):.2f}",
                    "",
                )
            )
    return "\n".join([*_introduction(reader, run), "", format_table(rows)])


def _introduction(reader: SampleReader, run: RunLength) -> Iterator[str]:
    yield f"{run.steps:,} steps of {run.batch_size:,} samples: {run.num_samples:,} samples"
    if len(reader.phases.first_blocks) > 1:
        steps = ", ".join(f"{step:,}" for step in _first_steps(reader, run)[1:])
        yield f"the mixture changes at step {steps}, with a block of {BLOCK_SIZE:,} samples"


def _first_steps(reader: SampleReader, run: RunLength) -> list[int]:
    """The step in which each phase begins."""
    return (reader.phases.first_blocks * BLOCK_SIZE // run.batch_size).tolist()


def _note(reader: SampleReader, index: int) -> str:
    if np.any((reader.phases.quotas[:, index] == 1) & (reader.order.num_items[index] > 0)):
        return "one a block, the least"
    return "capped" if reader.phases.capped[:, index].any() else ""
