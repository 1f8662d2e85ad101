"""In the place of Python, for tests: runs a script of the package, slowing or harming one phase of it once.

    PYTHON=tests/cluster/slowed.sh      in the site file, with
    HARM="validation data save limit hang raise nan witness"    phases to slow down, or what goes wrong

Each happens once in the life of the run, at its step, and leaves a file OUTPUT/did-NAME-RANK, which is
there from the moment in which it begins. But "witness" harms nothing: it notes in OUTPUT/writes.tsv when
which start of the job has taken the folder over, and when it has written into it.
"""

from __future__ import annotations

import math
import os
import runpy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SECONDS = 6.0
STEPS = {"data": 70, "save": 80, "validation": 100, "hang": 130, "raise": 150, "nan": 170, "limit": 160}
"""The step in which things go wrong, and after which they are slow."""


def main() -> None:
    output = Path(sys.argv[sys.argv.index("--output") + 1])
    rank = int(os.environ.get("SLURM_PROCID", "0"))
    for name in os.environ.get("HARM", "").split():
        HARMS[name](output, rank)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")


def _once(output: Path, name: str, rank: int) -> bool:
    """Whether this rank comes to this place for the first time in the life of the run."""
    mark = output / f"did-{name}-{rank}"
    if mark.exists():
        return False
    mark.touch()
    return True


def _before(owner: Any, name: str, act: Callable[..., object]) -> None:
    original = getattr(owner, name)

    def replacement(*arguments: Any, **named: Any) -> Any:
        act(*arguments)
        return original(*arguments, **named)

    setattr(owner, name, replacement)


def slow_validation(output: Path, rank: int) -> None:
    from deltalm_ds.training.trainer import Trainer
    from deltalm_ds.training.validation import Validator

    step = 0

    def note_step(trainer: Any) -> None:
        nonlocal step
        step = trainer.progress.step

    def act(*_: Any) -> None:
        if step == STEPS["validation"] and _once(output, "validation", rank):
            time.sleep(SECONDS)

    _before(Trainer, "_validate", note_step)
    _before(Validator, "_add", act)


def slow_data(output: Path, rank: int, name: str = "data", duration: float = SECONDS) -> None:
    """The batches of the next step do not come for a while."""
    from deltalm_ds.data.loader import StepLoader

    original = StepLoader.wait
    taken = StepLoader.__next__
    state = {"step": None, "until": 0.0}

    def count(loader: Any) -> Any:
        batches = taken(loader)
        state["step"] = batches.step + 1
        return batches

    def wait(loader: Any, seconds: float) -> bool:
        if state["step"] == STEPS[name] and _once(output, name, rank):
            state["until"] = time.monotonic() + duration
        if time.monotonic() < state["until"]:
            time.sleep(min(seconds, 0.1))
            return False
        return original(loader, seconds)

    StepLoader.wait = wait  # type: ignore[method-assign]
    StepLoader.__next__ = count  # type: ignore[method-assign]


def slow_save(output: Path, rank: int) -> None:
    from deltalm_ds.training.checkpoints import CheckpointStore

    def act(store: Any, snapshot: Any) -> None:
        if snapshot.state.step == STEPS["save"] and _once(output, "save", rank):
            time.sleep(SECONDS)

    _before(CheckpointStore, "write", act)


def hang(output: Path, rank: int) -> None:
    def act(trainer: Any, batches: Any) -> None:
        if batches.step + 1 == STEPS["hang"] and rank == 1 and _once(output, "hang", rank):
            time.sleep(3600)

    _before_step(act)


def raise_error(output: Path, rank: int) -> None:
    def act(trainer: Any, batches: Any) -> None:
        if batches.step + 1 == STEPS["raise"] and rank == 2 and _once(output, "raise", rank):
            raise RuntimeError("made by the test")

    _before_step(act)


def spoil_a_loss(output: Path, rank: int) -> None:
    from deltalm_ds.training.engine import Engine

    forward = Engine.forward
    is_time = False

    def note(trainer: Any, batches: Any) -> None:
        nonlocal is_time
        is_time = batches.step + 1 == STEPS["nan"] and rank == 1 and _once(output, "nan", rank)

    def spoiled(engine: Any, *arguments: Any, **named: Any) -> Any:
        sums = forward(engine, *arguments, **named)
        return sums._replace(loss=sums.loss * math.nan) if is_time else sums

    _before_step(note)
    Engine.forward = spoiled  # type: ignore[method-assign]


def witness(output: Path, rank: int) -> None:
    from deltalm_ds.training import assembly, resuming
    from deltalm_ds.training.checkpoints import CheckpointStore
    from deltalm_ds.training.monitor import Monitor

    def note(what: str) -> None:
        start = os.environ.get("SLURM_RESTART_COUNT", "0")
        with (output / "writes.tsv").open("a") as file:
            file.write(f"{start}\t{what}\t{time.time()}\n")

    claim = resuming.claim

    def noted_claim(*arguments: Any) -> Any:
        lease = claim(*arguments)
        note("took over")
        return lease

    resuming.claim = assembly.claim = noted_claim
    _after(CheckpointStore, "_finish", lambda: note("committed"))
    _after(Monitor, "record", lambda: note("recorded"))


def _after(owner: Any, name: str, act: Callable[[], None]) -> None:
    original = getattr(owner, name)

    def replacement(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        act()
        return result

    setattr(owner, name, replacement)


def _before_step(act: Callable[[Any, Any], None]) -> None:
    from deltalm_ds.training.trainer import Trainer

    _before(Trainer, "_run_step", act)


HARMS = {
    "validation": slow_validation,
    "data": slow_data,
    # SLURM looks at time limits twice a minute.
    "limit": partial(slow_data, name="limit", duration=90.0),
    "save": slow_save,
    "hang": hang,
    "raise": raise_error,
    "nan": spoil_a_loss,
    "witness": witness,
}

if __name__ == "__main__":
    main()
