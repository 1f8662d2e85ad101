"""The model in a run's checkpoint, of any ZeRO stage and number of processes, gathered by one process.

Needs no GPU and no process group. Weights are the optimizer's fp32 masters, whatever dtype the run had; they
are gathered one by one when they are read, so that none but the one in hand is in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import io
import pickle
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from deepspeed.checkpoint.constants import (
    OPTIMIZER_STATE_DICT,
    PARAM_SHAPES,
    PARAM_SLICE_MAPPINGS,
    SINGLE_PARTITION_OF_FP32_GROUPS,
)
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from torch import Tensor

from deltalm_ds.data.manifest import MANIFEST_NAME, Manifest
from deltalm_ds.errors import UserError
from deltalm_ds.exporting.model import ExportModel
from deltalm_ds.files import sha256_of
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.new_weights import whole
from deltalm_ds.training.checkpoint_engine import restricted_loading
from deltalm_ds.training.checkpoint_folder import (
    CHECKPOINTS,
    CONFIG,
    MODEL,
    START,
    RunState,
    fault_of,
    newest_whole,
    read_run_state,
)
from deltalm_ds.weights import (
    Description,
    OnDemand,
    load_pretrained,
    parameter_shapes,
    read_description,
)

_PLAIN_FILE = "mp_rank_00_model_states.pt"
_RANK = re.compile(r"pp_rank_(\d+)_")


def read_checkpoint(path: Path) -> ExportModel:
    """The model in `path`: a checkpoint's folder, or a run's output folder, whose newest whole one is taken.

    It is described where the data that the run was trained on are still in their place.
    UserError for a checkpoint that is not whole, that is of an encoder by itself, or that needs code to be
    read.
    """
    if (path / CHECKPOINTS).is_dir():
        folder, _ = newest_whole(path / CHECKPOINTS, print)
    else:
        folder = path
        if (fault := fault_of(folder)) is not None:
            raise UserError(f"{folder} is not whole ({fault}); convert another checkpoint of the run")
    state = read_run_state(folder)
    config = DeltaLMConfig.from_dict(dict(state.model_config))
    if not config.num_decoder_blocks:
        raise UserError(
            f"{folder} is of an encoder by itself: finish its run, which leaves a folder of XLM-R"
        )
    frozen = _frozen(folder, state)
    try:
        with restricted_loading():
            trained = _trained(folder, state, frozen.keys())
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} is refused, for loading it could run code: {reason}") from error
    expected = parameter_shapes(config)
    if trained.shapes != {name: shape for name, shape in expected.items() if name not in frozen}:
        raise UserError(f"{folder} holds other weights than its {folder / 'config.json'} describes")
    origin = (
        f"weights from {folder} (step {state.step:,}, ZeRO {state.zero_stage}, {state.dtype}, "
        f"{state.world_size} processes)"
    )
    weights = OnDemand(expected, lambda name: frozen[name] if name in frozen else trained.make(name))
    return ExportModel(origin=origin, config=config, weights=weights, description=_description(folder, state))


@dataclass(frozen=True)
class _Trained:
    """Masters that are gathered one by one, from files that are mapped."""

    shapes: dict[str, tuple[int, ...]]
    make: Callable[[str], Tensor]
    """By name: [shape] fp32, in memory of its own."""


def _frozen(folder: Path, state: RunState) -> OnDemand:
    """What a fine-tuning run left as it was, from the model that it began with: no optimizer has it."""
    patterns = state.settings.get("freeze") or []
    if not patterns:
        return OnDemand((), _nothing)
    loaded = load_pretrained(folder.parent.parent / START)
    shapes = {
        name: shape
        for name, shape in parameter_shapes(loaded.config).items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    return OnDemand(shapes, lambda name: whole(loaded.weights, name, shapes[name]))


def _nothing(name: str) -> Tensor:
    raise KeyError(name)


def _trained(folder: Path, state: RunState, frozen: Collection[str]) -> _Trained:
    """The masters of what was trained; torch.load must be restricted by the caller."""
    if state.zero_stage == 0:
        return _plain_weights(folder, state, frozen)
    if state.zero_stage < 3:
        return _joined_weights(folder)
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        shares = get_fp32_state_dict_from_zero_checkpoint(
            str(folder.parent), tag=folder.name, exclude_frozen_parameters=True, lazy_mode=True
        )
    shapes = {name: tuple(share.shape) for name, share in shares.items()}
    return _Trained(shapes, lambda name: shares[name].contiguous().float())


def _joined_weights(folder: Path) -> _Trained:
    """The masters of ZeRO 1 or 2: each process has consecutive pieces, and a map of whose they are.

    DeepSpeed's own reader knows stage 1 of bf16 not at all.
    """
    pieces: dict[str, list[Tensor]] = {}
    for path in sorted(folder.glob("*_optim_states.pt"), key=_rank):
        shard = _load(path)[OPTIMIZER_STATE_DICT]
        masters = shard[SINGLE_PARTITION_OF_FP32_GROUPS]
        for group, fragments in zip(masters, shard[PARAM_SLICE_MAPPINGS], strict=True):
            for name, place in fragments.items():
                pieces.setdefault(name, []).append(group[place.start : place.start + place.numel])
    shapes = {
        name: tuple(shape)
        for group in _load(folder / _PLAIN_FILE)[PARAM_SHAPES]
        for name, shape in group.items()
    }
    return _Trained(shapes, lambda name: torch.cat(pieces[name]).view(shapes[name]))


def _rank(path: Path) -> int:
    found = _RANK.search(path.name)
    assert found is not None, path
    return int(found[1])


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", mmap=True, weights_only=True)


def _plain_weights(folder: Path, state: RunState, frozen: Collection[str]) -> _Trained:
    """The masters of ZeRO 0, where every process has all of them, and one wrote them."""
    content = _load(folder / _PLAIN_FILE)
    rounded = {name: tensor for name, tensor in content["module"].items() if name not in frozen}
    shapes = {name: tuple(tensor.shape) for name, tensor in rounded.items()}
    if state.dtype == "fp32":
        return _Trained(shapes, lambda name: rounded[name].clone())
    # The optimizer's groups: matrices, then vectors (optimizer.py).
    names = sorted(rounded, key=lambda name: rounded[name].dim() <= 1)
    groups = [master for group in content["optimizer"]["fp32_groups"] for master in group]
    masters = dict(zip(names, groups, strict=True))
    for name, master in masters.items():
        if not torch.equal(master.to(rounded[name].dtype), rounded[name]):
            raise UserError(
                f"{folder}: the optimizer's {name} is not the model's; convert another checkpoint"
            )
    return _Trained(shapes, lambda name: masters[name].clone())


def _description(folder: Path, state: RunState) -> Description | None:
    """Tokenizer, languages and task, from the run's own model folders or else from the data of it.

    None where neither is there, or where the data's tokenizer is another by now.
    """
    for name in (MODEL, START):
        if (folder.parent.parent / name / CONFIG).is_file():
            described = read_description(folder.parent.parent / name)
            return dataclasses.replace(described, training=_training(state))
    data = state.settings.get("data")
    if data is None or not (Path(data) / MANIFEST_NAME).is_file():
        return None
    manifest = Manifest.read(Path(data))
    tokenizer = Path(data) / manifest.tokenizer.file
    if not tokenizer.is_file() or sha256_of(tokenizer) != state.fingerprint.get("tokenizer"):
        return None
    languages = {
        language for source in manifest.sources if source.split == "train" for language in source.languages
    }
    return Description(
        tokenizer=tokenizer,
        vocabulary=manifest.tokenizer.vocabulary,
        languages=tuple(sorted(languages)),
        training=_training(state),
    )


def _training(state: RunState) -> dict[str, Any]:
    return {"step": state.step, "settings": dict(state.settings), "data": dict(state.fingerprint)}
