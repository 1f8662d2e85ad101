"""Reading made-up files, for tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.options import ReadingOptions
from deltalm_ds.downstream.reading import read_examples
from deltalm_ds.downstream.registry import find_task
from deltalm_ds.downstream.splits import Split


def examples_of(
    *paths: Path,
    task: str = "translation",
    split: Split = "train",
    left_out: Counter[str] | None = None,
    **options: object,
) -> list[DownstreamExample]:
    """All examples that are read from some paths."""
    reading = ReadingOptions(**options)  # type: ignore[arg-type]
    return list(read_examples(paths, find_task(task), split, reading, left_out))
