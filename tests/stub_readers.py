"""Readers for tests of the loader; workers import them from here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from deltalm_ds.data.batches import GlobalBatch, StepBatches
from deltalm_ds.errors import UserError


def empty_step(batch: GlobalBatch) -> StepBatches:
    return StepBatches(batch.step, batch.first_position, batch.end_position, [], 0, 0)


@dataclass
class SlowReader:
    """Leaves a file named by its process before it reads, which takes `seconds`."""

    folder: Path
    seconds: float

    def read(self, batch: GlobalBatch) -> StepBatches:
        (self.folder / str(os.getpid())).touch()
        time.sleep(self.seconds)
        return empty_step(batch)


@dataclass
class FailingReader:
    """A user's mistake at step 0, an error at step 1, nothing for a long time after that."""

    def read(self, batch: GlobalBatch) -> StepBatches:
        if batch.step == 0:
            raise UserError("fr.bin holds token id 9999: prepare it again")
        if batch.step == 1:
            raise ZeroDivisionError("in the reader")
        time.sleep(600)
        return empty_step(batch)
