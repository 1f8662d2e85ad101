"""Checkpoints written behind training: a snapshot now, the files by a thread, the commit between steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from deltalm_ds.training.checkpoint_folder import RunState
from deltalm_ds.training.checkpoints import CheckpointStore, Snapshot, Written

Record = Callable[[int, str, dict[str, float]], None]
"""Takes a step, a kind of record and its values."""


@dataclass
class _Write:
    """A checkpoint on its way to the disk."""

    step: int
    snapshot_seconds: float
    thread: threading.Thread
    written: list[Written]


class BackgroundSaver:
    """Saves one checkpoint at a time, so that host memory holds one snapshot at most.

    Its methods are called by every rank together.
    """

    def __init__(self, store: CheckpointStore, record: Record, say: Callable[[str], None]) -> None:
        self._store, self._record, self._say = store, record, say
        self._write: _Write | None = None
        self.saved_step: int | None = None
        """The last step that was saved, or is being saved, by this process."""

    @property
    def is_unfinished(self) -> bool:
        """Whether a checkpoint waits for its commit; the same on every rank."""
        return self._write is not None

    @property
    def is_writing(self) -> bool:
        """Whether this rank still writes; False if it is done, or has nothing to write."""
        return self._write is not None and self._write.thread.is_alive()

    def start(self, state: RunState) -> None:
        """Copy the state to host memory and begin to write it; an earlier checkpoint is finished first."""
        self.finish()
        start = time.perf_counter()
        snapshot = self._store.snapshot(state)
        written: list[Written] = []
        thread = threading.Thread(target=self._run, args=(snapshot, written), daemon=True)
        self._write = _Write(state.step, time.perf_counter() - start, thread, written)
        self.saved_step = state.step
        thread.start()

    def finish(self) -> None:
        """Wait until every rank has written, and commit. Raises what `CheckpointStore.commit` raises."""
        if self._write is None:
            return
        write, self._write = self._write, None
        write.thread.join()
        saved = self._store.commit(write.written[0])
        self._record(
            write.step,
            "checkpoint",
            {
                "snapshot_seconds": write.snapshot_seconds,
                "write_seconds": saved.write_seconds,
                "gigabytes": saved.num_bytes / 1e9,
            },
        )
        self._say(
            f"saved {saved.folder}: {saved.num_bytes / 1e9:.2f} GB, training waited "
            f"{write.snapshot_seconds:.1f} s, written in {saved.write_seconds:.1f} s"
        )

    def _run(self, snapshot: Snapshot, written: list[Written]) -> None:
        written.append(self._store.write(snapshot))
