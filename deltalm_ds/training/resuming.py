"""Which checkpoint a run goes on from, and the taking over of its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalm_ds.errors import UserError
from deltalm_ds.model.config import with_decoder
from deltalm_ds.training import universal
from deltalm_ds.training.checkpoint_engine import refusing_code
from deltalm_ds.training.checkpoint_folder import (
    UNDONE,
    RunState,
    Say,
    differences,
    newest_whole,
    read_run_state,
    step_folders,
    unfinished_folders,
)
from deltalm_ds.training.distributed import on_first
from deltalm_ds.training.lease import REMOVED, Lease, remove_folder, take_lease, this_process


@dataclass(frozen=True)
class Resumable:
    """The checkpoint to resume from, as every rank knows it."""

    folder: Path
    state: RunState
    passed_over: tuple[str, ...]
    """Names of newer checkpoints that are not whole."""
    needs_universal: bool
    """Whether DeepSpeed must be initialised with {"checkpoint": {"load_universal": true}}."""
    lease: Lease
    """The right to go on in this folder, taken before the checkpoint was looked for."""

    @property
    def loaded_folder(self) -> Path:
        """The folder DeepSpeed reads: the checkpoint's own, or its converted form."""
        return universal.universal_folder(self.folder) if self.needs_universal else self.folder


def claim(directory: Path, say: Say = print) -> Lease:
    """Make this run the only one that writes into the folder, and clear away what others were writing.

    Called by rank 0. Raises UserError if a later incarnation of this run has it.
    """
    lease, before = take_lease(directory, this_process())
    if before is not None:
        say(f"{directory} is taken over from job {before.job} on {before.host}")
    for leftover in unfinished_folders(directory):
        say(f"removing {leftover.name}, left by an interrupted save")
        remove_folder(leftover)
    for removed in directory.glob(f"*{REMOVED}"):
        shutil.rmtree(removed, ignore_errors=True)
    return lease


def find_resumable(
    directory: Path,
    *,
    world_size: int,
    zero_stage: int,
    dtype: str,
    model_config: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    skipped_samples: Sequence[tuple[int, int]] = (),
    allow_changes: bool = False,
    say: Say = print,
) -> Resumable:
    """The newest whole checkpoint in `directory`, made ready for this world size and ZeRO stage.

    Rank 0 looks, verifies sizes and hashes, converts where the sharding has changed, and tells the others;
    `say` gets a line about everything out of the ordinary. With `allow_changes` another fingerprint is only
    said. torch.distributed must be initialised.

    A range of `skipped_samples` that the newest checkpoint does not know of leads back to the newest one from
    before that range; those after it are renamed to `step_N.undone`.

    Raises UserError on every rank if nothing whole is there, or if the checkpoint belongs to another model,
    other data, another dtype, or a ZeRO stage that cannot become this one; the lease is then not taken.
    """

    def look() -> tuple[Path, RunState, tuple[str, ...], list[Path]]:
        undone = _behind(directory, skipped_samples)
        folder, passed_over = newest_whole(directory, say, undone)
        state = read_run_state(folder)
        _check_identity(state, model_config, fingerprint, say if allow_changes else None)
        if state.dtype != dtype:
            raise UserError(
                f"{folder} is in {state.dtype}, this run in {dtype}; set {state.dtype} in the DeepSpeed JSON"
            )
        if state.zero_stage != zero_stage and 0 in (state.zero_stage, zero_stage):
            raise UserError(
                f"{folder} is of ZeRO stage {state.zero_stage}, which stage {zero_stage} cannot read;"
                f' set "zero_optimization": {{"stage": {state.zero_stage}}} in the DeepSpeed JSON'
            )
        return folder, state, passed_over, undone

    def take_and_convert() -> Resumable:
        seen = step_folders(directory)
        found = look()
        lease = claim(directory, say)
        if step_folders(directory) != seen:  # the run before, still alive, has saved once more
            found = look()
        folder, state, passed_over, undone = found
        for later in undone:
            say(f"going back behind {later.name}, which is kept as {later.name}{UNDONE}")
            later.rename(later.with_name(later.name + UNDONE))
        needs_universal = zero_stage > 0 and (
            state.zero_stage != zero_stage or state.world_size != world_size
        )
        if needs_universal:
            say(
                f"converting {folder.name} from ZeRO {state.zero_stage} on {state.world_size} processes"
                f" for ZeRO {zero_stage} on {world_size}"
            )
            with refusing_code(folder):
                universal.convert(folder)
        return Resumable(folder, state, passed_over, needs_universal, lease)

    return on_first(take_and_convert)


def _behind(directory: Path, skipped_samples: Sequence[tuple[int, int]]) -> list[Path]:
    """Checkpoints of runs that have trained on samples that are to be skipped."""
    undone = []
    for folder in step_folders(directory):
        try:
            state = read_run_state(folder)
        except (OSError, ValueError, TypeError):
            continue  # it will be passed over
        if any(
            first < state.next_position and (first, end) not in state.skipped_samples
            for first, end in skipped_samples
        ):
            undone.append(folder)
    return undone


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
