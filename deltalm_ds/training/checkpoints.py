"""Checkpoints of a run: folders `step_N` and a text file `latest`, each committed by one rename.

Saving is three calls. `snapshot` copies this rank's state to host memory and makes `step_N.tmp/`; `write`
writes and hashes this rank's files there, with no communication, so it may run in a background thread;
`commit` learns how every rank fared, completes the folder and renames it. Resuming is `find_resumable` before
the DeepSpeed engine exists, for it decides one of its settings, and `CheckpointStore.load` after.
All but `write` are called by every rank together.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from deltalm_ds.errors import UserError
from deltalm_ds.files import fsync_directory, write_text_atomically
from deltalm_ds.model.config import with_decoder
from deltalm_ds.training import universal
from deltalm_ds.training.checkpoint_engine import (
    SnapshotEngine,
    num_tensor_bytes,
    restricted_loading,
    write_synced,
)
from deltalm_ds.training.checkpoint_folder import (
    LATEST,
    UNFINISHED,
    FileRecord,
    RunState,
    Say,
    differences,
    fault_of,
    is_no_space,
    newest_whole,
    read_run_state,
    step_folders,
    unfinished_folders,
    write_manifest,
    write_run_state,
)
from deltalm_ds.training.distributed import on_first

ResultT = TypeVar("ResultT")

_SPARE_BYTES = 1 << 20  # for headers, run.json and the manifest


@dataclass(frozen=True)
class Resumable:
    """The checkpoint to resume from, as every rank knows it."""

    folder: Path
    state: RunState
    passed_over: tuple[str, ...]
    """Names of newer checkpoints that are not whole."""
    needs_universal: bool
    """Whether DeepSpeed must be initialised with {"checkpoint": {"load_universal": true}}."""

    @property
    def loaded_folder(self) -> Path:
        """The folder DeepSpeed reads: the checkpoint's own, or its converted form."""
        return universal.universal_folder(self.folder) if self.needs_universal else self.folder


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


def find_resumable(
    directory: Path,
    *,
    world_size: int,
    zero_stage: int,
    dtype: str,
    model_config: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    allow_changes: bool = False,
    say: Say = print,
) -> Resumable:
    """The newest whole checkpoint in `directory`, made ready for this world size and ZeRO stage.

    Rank 0 looks, verifies sizes and hashes, converts where the sharding has changed, and tells the others;
    `say` gets a line about everything out of the ordinary. With `allow_changes` another fingerprint is only
    said. torch.distributed must be initialised.

    Raises UserError on every rank if nothing whole is there, or if the checkpoint belongs to another model,
    other data, another dtype, or a ZeRO stage that cannot become this one.
    """

    def look() -> Resumable:
        folder, passed_over = newest_whole(directory, say)
        state = read_run_state(folder)
        _check_identity(state, model_config, fingerprint, say if allow_changes else None)
        if state.dtype != dtype:
            raise UserError(
                f"{folder} is in {state.dtype}, this run in {dtype}; set {state.dtype} in the DeepSpeed JSON"
            )
        changed_stage = state.zero_stage != zero_stage
        if changed_stage and 0 in (state.zero_stage, zero_stage):
            raise UserError(
                f"{folder} is of ZeRO stage {state.zero_stage}, which stage {zero_stage} cannot read;"
                f' set "zero_optimization": {{"stage": {state.zero_stage}}} in the DeepSpeed JSON'
            )
        needs_universal = zero_stage > 0 and (changed_stage or state.world_size != world_size)
        if needs_universal:
            say(
                f"converting {folder.name} from ZeRO {state.zero_stage} on {state.world_size} processes"
                f" for ZeRO {zero_stage} on {world_size}"
            )
            with _refusing_code(folder):
                universal.convert(folder)
        return Resumable(folder, state, passed_over, needs_universal)

    return on_first(look)


class CheckpointStore:
    """The checkpoints of one DeepSpeed engine in one directory, of which the newest `num_kept` are kept."""

    def __init__(self, directory: Path, engine: Any, *, num_kept: int, say: Say = print) -> None:
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
        with restricted_loading(), _refusing_code(folder):
            loaded, _ = self._engine.load_checkpoint(str(folder.parent), tag=folder.name)
            if loaded is None:
                raise RuntimeError(f"DeepSpeed found nothing to load in {folder}")
            if resumable.needs_universal:
                universal.repair_after_loading(self._engine, folder)
        self._broken.update(resumable.passed_over)
        return resumable.state

    def save(self, state: RunState) -> Path:
        """Snapshot, write and commit, one after the other; returns the new folder."""
        return self.commit(self.write(self.snapshot(state)))

    def snapshot(self, state: RunState) -> Snapshot:
        """Copy what this rank must write to host memory and make the folder aside.

        Raises UserError on every rank if the disk has no room for the shares of all.
        """
        self._engine.save_checkpoint(
            str(self.directory), tag=state.name, client_state=universal.CLIENT_STATE, save_latest=False
        )
        snapshot = Snapshot(state, self._collector.collected)
        self._collector.collected = {}
        on_first(self._remove_leftovers)
        self._check_space(snapshot)
        on_first(self._aside(state).mkdir)
        return snapshot

    def write(self, snapshot: Snapshot) -> Written:
        """Write this rank's files of the snapshot, each synced and hashed, freeing its memory on the way.

        Calls no collective and raises nothing: `commit` tells every rank of a failure.
        """
        aside = self._aside(snapshot.state)
        records = {}
        try:
            aside.mkdir(exist_ok=True)  # rank 0 made it, but a network file system may not show it yet
            for name in list(snapshot.files):
                records[name] = write_synced(snapshot.files.pop(name), aside / name)
        except Exception as error:
            snapshot.files.clear()
            return Written(snapshot.state, {}, f"{type(error).__name__}: {error}", is_no_space(error))
        return Written(snapshot.state, records, None, False)

    def commit(self, written: Written) -> Path:
        """Complete the folder, rename it to `step_N`, point `latest` to it, and remove what is too old.

        If any rank failed to write, the folder aside is removed, earlier checkpoints are untouched, and every
        rank raises: UserError when the disk was full, RuntimeError otherwise.
        """
        state = written.state
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, written)
        faults = [f"rank {rank}: {each.fault}" for rank, each in enumerate(everyone) if each.fault]
        if faults:
            on_first(lambda: shutil.rmtree(self._aside(state)))
            message = f"{state.name} not saved in {self.directory}, earlier ones are untouched: {faults[0]}"
            if any(each.no_space for each in everyone):
                raise UserError(f"{message}; free space or set --output elsewhere")
            raise RuntimeError(message)
        records = {name: record for each in everyone for name, record in each.records.items()}

        on_first(lambda: self._finish(state, records))
        return self.directory / state.name

    def _aside(self, state: RunState) -> Path:
        return self.directory / (state.name + UNFINISHED)

    def _remove_leftovers(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in unfinished_folders(self.directory):
            self._say(f"removing {leftover.name}, left by an interrupted save")
            shutil.rmtree(leftover)

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
        try:
            if final.exists() and fault_of(final) is None:
                self._say(f"{state.name} is already there and whole")
                shutil.rmtree(aside)
            else:
                write_manifest(aside, {**records, **write_run_state(aside, state)})
                fsync_directory(aside)
                if final.exists():
                    self._say(f"replacing {state.name}, which was not whole")
                    self._remove(final)
                aside.rename(final)
                fsync_directory(self.directory)
            write_text_atomically(self.directory / LATEST, state.name + "\n")
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
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
        shutil.rmtree(folder)


def _check_identity(
    state: RunState, model_config: Mapping[str, Any], fingerprint: Mapping[str, Any], say_only: Say | None
) -> None:
    # First the objectives, for they decide what kind of model there is.
    if changed := differences(state.fingerprint, fingerprint):
        message = f"checkpoint {state.name} is of other data or objectives: {changed}"
        if say_only is None:
            raise UserError(f"{message}; give the same, or --allow-changes, or start a new run")
        say_only(message)
    if changed := differences(with_decoder(state.model_config), model_config):
        raise UserError(
            f"checkpoint {state.name} is of another model: {changed};"
            " give the same model options, or start a new run"
        )


@contextlib.contextmanager
def _refusing_code(folder: Path) -> Iterator[None]:
    """Turn the refusal of restricted loading into a UserError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} is refused, for loading it could run code: {reason}") from error
