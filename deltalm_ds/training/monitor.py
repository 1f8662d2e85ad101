"""Where a run's numbers go: one line on the console, TensorBoard, and metrics.jsonl."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from deltalm_ds.files import write_text_atomically

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Monitor:
    """The record of one run; only rank 0 has one.

    A record is a step with named numbers. TensorBoard shows each name as a curve; metrics.jsonl holds a JSON
    object a line. After a resume both go on from the step of the checkpoint: what was recorded later is
    forgotten, since it will come again, and so is the step's validation where it is still due. metrics.jsonl
    is then a new file, so that an earlier process of the run, should it still live, adds its lines to the old
    one.
    """

    def __init__(self, output: Path, resumed_at: int, is_validation_due: bool = False) -> None:
        output.mkdir(parents=True, exist_ok=True)
        metrics = output / METRICS
        if metrics.exists():
            _forget_after(metrics, resumed_at, is_validation_due)
        self._metrics = metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(output / TENSORBOARD), purge_step=resumed_at + 1)

    def record(self, step: int, kind: str, values: Mapping[str, float | int | None]) -> None:
        """Record `values` of `step`; kind ("train", "validation") is their group.

        What is not finite is null in JSON, which has no such numbers, and left out of the curves.
        """
        values = {name: _finite(value) for name, value in values.items()}
        json.dump({"step": step, "kind": kind, **values}, self._metrics, ensure_ascii=False, allow_nan=False)
        self._metrics.write("\n")
        self._metrics.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        self._board.flush()

    def show_text(self, step: int, name: str, text: str) -> None:
        """Put a text beside the curves, as it stands."""
        self._board.add_text(name, "    " + text.replace("\n", "\n    "), step)
        self._board.flush()

    def close(self) -> None:
        """Write what is buffered."""
        self._metrics.close()
        self._board.close()


def say(text: str) -> None:
    """One line for people, on stderr; called on rank 0."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """1 d 02:03:04 or 03:04."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    text = f"{minute:02}:{second:02}"
    if hours:
        text = f"{hour:02}:{text}"
    return f"{days} d {text}" if days else text


def read_metrics(output: Path) -> list[dict[str, Any]]:
    """All records of a run, in order. A line cut off by a crash is left out."""
    records = []
    for line in (output / METRICS).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return records


def _finite(value: float | int | None) -> float | int | None:
    return value if value is not None and math.isfinite(value) else None


def _forget_after(metrics: Path, step: int, is_validation_due: bool) -> None:
    kept = [
        record
        for record in read_metrics(metrics.parent)
        if record["step"] < step
        or (record["step"] == step and not (is_validation_due and record["kind"] == "validation"))
    ]
    write_text_atomically(metrics, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
