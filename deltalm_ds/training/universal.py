"""Checkpoints for another number of processes or another ZeRO stage, by DeepSpeed's universal format.

DeepSpeed's converter gathers the shards of every parameter; its loader cuts them anew. What they leave wrong
in deepspeed 0.19.8 is put right here: files that only one family of stages writes or reads, and ZeRO-3's
loader, which gives all parameter groups the settings of the first and all sub-groups one shared step tensor.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.checkpoint import ds_to_universal
from deepspeed.checkpoint.constants import (
    DS_VERSION,
    OPTIMIZER_STATE_DICT,
    PARAM,
    PARAM_GROUPS,
    UNIVERSAL_CHECKPOINT_INFO,
    UNIVERSAL_CHECKPOINT_VERSION_KEY,
    UNIVERSAL_CHECKPOINT_VERSION_VALUE,
)

from deltalm_ds.errors import UserError
from deltalm_ds.files import fsync_directory
from deltalm_ds.training.checkpoint_engine import restricted_loading
from deltalm_ds.training.checkpoint_folder import (
    CONFIG,
    MANIFEST,
    RUN,
    UNFINISHED,
    UNIVERSAL,
    fault_of,
    is_no_space,
    record_files,
    write_manifest,
)

CLIENT_STATE = {
    UNIVERSAL_CHECKPOINT_INFO: {UNIVERSAL_CHECKPOINT_VERSION_KEY: UNIVERSAL_CHECKPOINT_VERSION_VALUE}
}
"""What the converter wants to find in a checkpoint of ZeRO 1 and 2; no tensor parallelism, so no patterns."""

_CONVERTED = "converted"
_SOURCE = "converted_from.json"
_OPTIMIZER_FILE = "optimizer_state.pt"
_STEP_FILE = "step.pt"
_STATE_FILES = ("fp32.pt", "exp_avg.pt", "exp_avg_sq.pt")
_MODEL_FILES = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")


def universal_folder(folder: Path) -> Path:
    """Where the converted form of the checkpoint `folder` lies."""
    return folder.with_name(folder.name + UNIVERSAL)


def convert(folder: Path) -> Path:
    """Convert the whole checkpoint `folder` (ZeRO 1 to 3) and return the folder of the result.

    To be called by one process. A whole result of an earlier call is used again; otherwise the new one is
    made aside and renamed into place. Nothing but tensors and plain values is unpickled.

    Raises UserError if the disk has no room, pickle.UnpicklingError if a file could run code.
    """
    result = universal_folder(folder)
    source = (folder / MANIFEST).read_bytes()
    if result.exists():
        if fault_of(result) is None and (result / _SOURCE).read_bytes() == source:
            return result
        shutil.rmtree(result)
    aside = result.with_name(result.name + UNFINISHED)
    shutil.rmtree(aside, ignore_errors=True)
    _check_space(folder)
    converted = aside / _CONVERTED  # one level down, since the converter writes a file beside its output
    converted.mkdir(parents=True)
    try:
        _fill(folder, converted)
        (converted / _SOURCE).write_bytes(source)
        _seal(converted)
        converted.rename(result)
    except OSError as error:
        if is_no_space(error):
            raise UserError(f"no space to convert {folder}; free space or copy the run elsewhere") from error
        raise
    finally:
        shutil.rmtree(aside)
    fsync_directory(result.parent)
    return result


def repair_after_loading(engine: Any, folder: Path) -> None:
    """Finish `engine.load_checkpoint` of the universal `folder`.

    At ZeRO-3 every parameter group gets back its own settings (its weight decay among them), every flat
    sub-group its own step counter: a shared one would be raised once for each sub-group by every optimizer
    step. At every stage the counters of fused and capturable optimizers go to the parameters' device.
    """
    optimizer = engine.optimizer.optimizer
    if engine.zero_optimization_stage() == 3:
        with restricted_loading():
            saved = _load(folder / "zero" / _OPTIMIZER_FILE)[PARAM_GROUPS]
        for group, settings in zip(optimizer.param_groups, saved, strict=True):
            group.update({name: value for name, value in settings.items() if name != "params"})
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for parameter, state in optimizer.state.items():
        step = state.get("step")
        if torch.is_tensor(step):
            state["step"] = step.clone().to(parameter.device if on_device else "cpu")


def _check_space(folder: Path) -> None:
    # The converter holds its fragments and its result at the same time.
    needed = 2 * sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no space to convert {folder} for another number of processes or ZeRO stage: needs {needed:,}"
            f" bytes, has {free:,}; free space or resume with the old number and stage"
        )


def _fill(folder: Path, converted: Path) -> None:
    # One worker: more would be forked from a process that has threads and a process group.
    arguments = Namespace(
        input_folder=str(folder),
        output_folder=str(converted),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=False,
    )
    silence = io.StringIO()
    with restricted_loading(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        ds_to_universal.main(arguments)
        _complete_for_all_stages(converted)
    for name in (RUN, CONFIG):
        shutil.copy2(folder / name, converted / name)


def _complete_for_all_stages(converted: Path) -> None:
    """Let stages 1 and 2 read what stage 3 wrote and the reverse.

    Stages 1 and 2 look for the step beside each parameter and for each tensor in a dict, stage 3 for the step
    in the common file, under the first parameter. The file with DeepSpeed's counters and the schedule has
    another name at stage 3; loading leaves out its weights, since they are in fp32 under zero/.
    """
    zero = converted / "zero"
    common = _load(zero / _OPTIMIZER_FILE)
    parameters = sorted({path.parent for path in zero.rglob(_STATE_FILES[0])})
    if OPTIMIZER_STATE_DICT in common:
        step = common[OPTIMIZER_STATE_DICT]["state"][0]["step"]
        for parameter in parameters:
            torch.save(step, parameter / _STEP_FILE)
            for name in _STATE_FILES:
                torch.save({PARAM: _load(parameter / name)}, parameter / name)
    else:
        step = _load(parameters[0] / _STEP_FILE)
    kept = {name: value for name, value in common.items() if not _holds_tensors(value)}
    for_stage_3 = {"state": {0: {"step": step}}, PARAM_GROUPS: common[PARAM_GROUPS]}
    torch.save(
        {**kept, DS_VERSION: deepspeed.__version__, OPTIMIZER_STATE_DICT: for_stage_3}, zero / _OPTIMIZER_FILE
    )
    model_files = sorted(converted.glob("*_model_states.pt"))
    counters = {**_load(model_files[0]), "module": {}}
    for path in model_files:
        path.unlink()
    for name in _MODEL_FILES:
        torch.save(counters, converted / name)


def _holds_tensors(value: Any) -> bool:
    """Whether a value of the common file is a shard: one rank's own, of no use to the others."""
    if isinstance(value, Mapping):
        return any(_holds_tensors(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds_tensors(item) for item in value)
    return torch.is_tensor(value)


def _seal(folder: Path) -> None:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    names = [path.relative_to(folder).as_posix() for path in paths]
    write_manifest(folder, record_files(folder, names))


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
