"""Checkpoints of a run: folders `step_N` and a text file `latest`, each committed by one rename.

Saving is three calls. `snapshot` copies this rank's state to host memory and makes `step_N.tmp/`; `write`
writes and hashes this rank's files there, with no communication, so it may run in a background thread;
`commit` learns how every rank fared, completes the folder and renames it. Resuming is `find_resumable` before
the DeepSpeed engine exists, for it decides one of its settings, and `CheckpointStore.load` after.
All but `write` are called by every rank together. Only the holder of the folder's lease commits.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from deltalm_ds.errors import UserError
from deltalm_ds.files import fsync_directory, write_text_atomically
from deltalm_ds.training import universal
from deltalm_ds.training.checkpoint_engine import (
    SnapshotEngine,
    num_tensor_bytes,
    refusing_code,
    restricted_loading,
    write_synced,
)
from deltalm_ds.training.checkpoint_folder import (
    LATEST,
    UNFINISHED,
    FileRecord,
    RunState,
    Say,
    fault_of,
    is_no_space,
    step_folders,
    write_manifest,
    write_run_state,
)
from deltalm_ds.training.distributed import on_first
from deltalm_ds.training.lease import Lease, remove_folder
from deltalm_ds.training.resuming import Resumable

ResultT = TypeVar("ResultT")

_SPARE_BYTES = 1 << 20  # for headers, run.json and the manifest


@dataclass
class Snapshot:
    """One rank's share of a checkpoint in host memory; `write` empties it."""

    state: RunState
    files: dict[str, Any]


@dataclass(frozen=True)
class Written:
    """What `write` did on one rank: its part of the manifest, or why not."""

    state: RunState
    records: dict[str, FileRecord]
    fault: str | None
    no_space: bool
    seconds: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is complete."""

    folder: Path
    num_bytes: int
    """Of all files of all ranks."""
    write_seconds: float
    """Of the rank that took longest to write."""


class CheckpointStore:
    """The checkpoints of one DeepSpeed engine in one directory, of which the newest `num_kept` are kept."""

    def __init__(
        self, directory: Path, engine: Any, *, num_kept: int, lease: Lease, say: Say = print
    ) -> None:
        """Take over the engine's reading and writing.

        Raises ValueError if num_kept < 1, UserError for settings that make DeepSpeed write files by itself.
        """
        if num_kept < 1:
            raise ValueError(f"num_kept must be at least 1, not {num_kept}")
        if engine.zero_nvme_offload_optimizer() or engine.use_node_local_storage():
            raise UserError(
                "checkpoints need the optimizer in memory and one shared folder: unset NVMe offload and "
                "use_node_local_storage in the DeepSpeed JSON"
            )
        self.directory = directory
        self._engine = engine
        self._num_kept = num_kept
        self._lease = lease
        self._say = say
        self._broken: set[str] = set()
        self._collector = SnapshotEngine()
        engine.checkpoint_engine = self._collector
        # All that DeepSpeed would still write itself: scripts, on rank 0 only, before a barrier.
        engine._copy_recovery_script = lambda folder: None

    def load(self, resumable: Resumable) -> RunState:
        """Put the checkpoint's state into the engine, which must be fresh: no step taken, nothing saved.

        Raises UserError if a file holds anything but tensors and plain values.
        """
        if self._engine.load_universal_checkpoint() != resumable.needs_universal:
            raise ValueError(
                f'"load_universal" must be {resumable.needs_universal} in the DeepSpeed configuration'
            )
        folder = resumable.loaded_folder
        with restricted_loading(), refusing_code(folder):
            loaded, _ = self._engine.load_checkpoint(str(folder.parent), tag=folder.name)
            if loaded is None:
                raise RuntimeError(f"DeepSpeed found nothing to load in {folder}")
            if resumable.needs_universal:
                universal.repair_after_loading(self._engine, folder)
        self._broken.update(resumable.passed_over)
        self._lease = resumable.lease
        return resumable.state

    def check_lease(self) -> None:
        """On rank 0, before anything is written for the run: UserError if it has been taken over."""
        self._lease.check()

    def save(self, state: RunState) -> Path:
        """Snapshot, write and commit, one after the other; returns the new folder."""
        return self.commit(self.write(self.snapshot(state))).folder

    def snapshot(self, state: RunState) -> Snapshot:
        """Copy what this rank must write to host memory and make the folder aside.

        Raises UserError on every rank if the disk has no room for the shares of all, or another run has
        taken the lease.
        """
        self._engine.save_checkpoint(
            str(self.directory), tag=state.name, client_state=universal.CLIENT_STATE, save_latest=False
        )
        snapshot = Snapshot(state, self._collector.collected)
        self._collector.collected = {}
        self._check_space(snapshot)
        on_first(lambda: self._make_aside(state))
        return snapshot

    def write(self, snapshot: Snapshot) -> Written:
        """Write this rank's files of the snapshot, each synced and hashed, freeing its memory on the way.

        Calls no collective and raises nothing: `commit` tells every rank of a failure.
        """
        aside = self._aside(snapshot.state)
        start, records = time.perf_counter(), {}
        try:
            aside.mkdir(exist_ok=True)  # rank 0 made it, but a network file system may not show it yet
            for name in list(snapshot.files):
                records[name] = write_synced(snapshot.files.pop(name), aside / name)
        except Exception as error:
            snapshot.files.clear()
            fault, seconds = f"{type(error).__name__}: {error}", time.perf_counter() - start
            return Written(snapshot.state, {}, fault, is_no_space(error), seconds)
        return Written(snapshot.state, records, None, False, time.perf_counter() - start)

    def commit(self, written: Written) -> Saved:
        """Complete the folder, rename it to `step_N`, point `latest` to it, and remove what is too old.

        If any rank failed to write, the folder aside is removed, earlier checkpoints are untouched, and every
        rank raises: UserError when the disk was full or the lease is lost, RuntimeError otherwise.
        """
        state = written.state
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, written)
        faults = [f"rank {rank}: {each.fault}" for rank, each in enumerate(everyone) if each.fault]
        if faults:
            on_first(lambda: self._abandon(state))
            message = f"{state.name} not saved in {self.directory}, earlier ones are untouched: {faults[0]}"
            if any(each.no_space for each in everyone):
                raise UserError(f"{message}; free space or set --output elsewhere")
            raise RuntimeError(message)
        records = {name: record for each in everyone for name, record in each.records.items()}

        on_first(lambda: self._finish(state, records))
        return Saved(
            self.directory / state.name,
            sum(record.size for record in records.values()),
            max(each.seconds for each in everyone),
        )

    def _aside(self, state: RunState) -> Path:
        return self._lease.aside(state.name, UNFINISHED)

    def _abandon(self, state: RunState) -> None:
        remove_folder(self._aside(state))
        self._lease.check()  # who has taken it has renamed the folder while this rank wrote into it

    def _make_aside(self, state: RunState) -> None:
        self._aside(state).mkdir()
        self._lease.check()  # after, not before: see the module of the lease

    def _check_space(self, snapshot: Snapshot) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        own = num_tensor_bytes(snapshot.files), shutil.disk_usage(self.directory).free
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, own)
        needed = sum(size for size, _ in everyone) + _SPARE_BYTES
        free = min(free for _, free in everyone)
        if free < needed:
            raise UserError(
                f"no space for checkpoint {snapshot.state.name} in {self.directory}: needs {needed:,} bytes,"
                f" has {free:,}; free space or set --output elsewhere"
            )

    def _finish(self, state: RunState, records: dict[str, FileRecord]) -> None:
        aside, final = self._aside(state), self.directory / state.name
        self._lease.check()
        try:
            if final.exists() and fault_of(final) is None:
                self._say(f"{state.name} is already there and whole")
                remove_folder(aside)
            else:
                write_manifest(aside, {**records, **write_run_state(aside, state)})
                fsync_directory(aside)
                if final.exists():
                    self._say(f"replacing {state.name}, which was not whole")
                    self._remove(final)
                aside.rename(final)
                fsync_directory(self.directory)
            self._lease.check()  # who has taken it since the rename has the checkpoint, and names later ones
            write_text_atomically(self.directory / LATEST, state.name + "\n")
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            self._lease.check()  # who has taken it has renamed what was here
            if is_no_space(error):
                raise UserError(f"no space for {final}; free space or set --output elsewhere") from error
            raise
        self._broken.discard(state.name)
        self._prune()

    def _prune(self) -> None:
        """Keep the newest `num_kept` whole checkpoints, remove all that are older than these."""
        folders = step_folders(self.directory)
        whole = [folder for folder in folders if folder.name not in self._broken]
        if len(whole) <= self._num_kept:
            return
        for folder in folders[folders.index(whole[self._num_kept]) :]:
            self._remove(folder)

    @staticmethod
    def _remove(folder: Path) -> None:
        shutil.rmtree(universal.universal_folder(folder), ignore_errors=True)
        remove_folder(folder)
