"""What a loader's worker process does. It needs no torch, so that it starts soon and stays small."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

from deltalm_ds.data.batches import GlobalBatch, StepBatches
from deltalm_ds.errors import UserError
from deltalm_ds.following import follow_parent


class Reader(Protocol):
    """What makes a step's batches; `deltalm_ds.data.batches.StepReader` is one. Workers get a copy each."""

    def read(self, batch: GlobalBatch) -> StepBatches:
        """What this rank runs of a global batch."""


@dataclass(frozen=True)
class Failure:
    """An exception in a worker."""

    traceback: str
    """As Python prints it."""


Made = StepBatches | UserError | Failure
"""What a worker answers."""


def work(reader: Reader, connection: Connection) -> None:
    """Answer every GlobalBatch that comes through `connection`, until its other end is closed."""
    follow_parent()  # in the midst of a step the connection is not looked at
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            connection.send(_read(reader, connection.recv()))


def _read(reader: Reader, batch: GlobalBatch) -> Made:
    try:
        return reader.read(batch)
    except UserError as error:
        return error
    except Exception:
        return Failure(traceback.format_exc())
