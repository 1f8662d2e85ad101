"""DeepSpeed's JSON, read strictly and resolved to what the engine is given.

DeepSpeed itself ignores unknown top-level keys, ignores many known ones in some stages, reads "auto" as
absent and sums bf16 gradients in bf16. Here an unknown key, a key without effect and an unresolved "auto" are
errors, and gradients are summed and reduced in fp32 unless the file says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically
from deltalm_ds.training.deepspeed_batch import RequestedBatch, resolve_batch
from deltalm_ds.training.deepspeed_keys import TOP_LEVEL
from deltalm_ds.training.deepspeed_schema import GradientPath, Passed, Section, read_object

Dtype = Literal["fp32", "bf16", "fp16"]

_BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
_DYNAMIC_SCALE_KEYS = (
    "initial_scale_power",
    "loss_scale_window",
    "hysteresis",
    "consecutive_hysteresis",
    "min_loss_scale",
)
_GROWTH_INTERVAL = 1000
_NEVER = 2**31 - 1


@dataclass(frozen=True)
class DynamicLossScale:
    """Loss scaling of fp16 that follows overflows.

    DeepSpeed halves the scale. The trainer doubles it: DeepSpeed 0.19 would do so between the backward pass
    and the division by the scale, and such a step would use half the gradient.
    """

    growth_interval: int
    """Steps without overflow after which the scale doubles (fp16.loss_scale_window)."""


@dataclass(frozen=True)
class DeepSpeedConfig:
    """What DeepSpeed is given, and what follows from it for the trainer."""

    resolved: dict[str, Any]
    """The whole configuration, with no "auto" left."""
    dtype: Dtype
    """Of the weights in the forward and backward pass; masters and moments are fp32."""
    zero_stage: int
    global_batch_size: int
    """Samples of an optimizer step, over all processes: exact."""
    micro_batch_size: int
    """Samples of the largest micro-batch of a process."""
    gradient_accumulation_steps: int
    """Micro-batches of each process in a step."""
    gradient_clipping: float
    """Largest norm of the gradient; 0 for no clipping."""
    offload_optimizer: bool
    """Whether masters and moments live, and the optimizer runs, on the CPU."""
    dynamic_loss_scale: DynamicLossScale | None
    """None unless dtype is fp16 and fp16.loss_scale is 0 or absent."""

    def to_json(self) -> str:
        """`resolved` for reading and saving."""
        return json.dumps(self.resolved, indent=2) + "\n"

    def save(self, path: str | Path) -> None:
        """Write `to_json()` to `path`, whole or not at all."""
        write_text_atomically(path, self.to_json())


def read_deepspeed_config(
    path: Path,
    requested: RequestedBatch,
    world_size: int,
    *,
    gradient_clipping: float,
    default_dtype: Literal["fp32", "bf16"],
) -> DeepSpeedConfig:
    """Read the JSON file at `path` for `world_size` processes.

    `gradient_clipping` and `default_dtype` are taken where the file says "auto" (for clipping also where it
    says nothing). Raises UserError, naming the file and the place in it, for whatever cannot be honoured.
    """
    written = read_object(path, TOP_LEVEL)
    zero = written.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    offload = zero.get("offload_optimizer", {}).get("device", "none") != "none"
    dtype = _dtype(path, written, stage, default_dtype)
    types = _gradient_dtypes(path, written, stage, dtype)
    _refuse_without_effect(path, written, dtype, _gradient_path(stage, dtype, offload, types))

    batch = resolve_batch(
        path,
        requested,
        {key: written[key] for key in _BATCH_KEYS if written.get(key, "auto") != "auto"},
        world_size,
    )
    clipping = written.get("gradient_clipping", "auto")
    clipping = gradient_clipping if clipping == "auto" else float(clipping)
    dynamic = None
    if dtype == "fp16" and not written["fp16"].get("loss_scale", 0):
        dynamic = DynamicLossScale(written["fp16"].get("loss_scale_window", _GROWTH_INTERVAL))
    return DeepSpeedConfig(
        resolved={
            "train_micro_batch_size_per_gpu": batch.micro_batch,
            "gradient_accumulation_steps": batch.accumulation,
            "gradient_clipping": clipping,
            **_resolved_sections(written, dtype, stage, dynamic),
            **types,
            **_resolved_switches(written),
        },
        dtype=dtype,
        zero_stage=stage,
        global_batch_size=batch.global_batch,
        micro_batch_size=batch.micro_batch,
        gradient_accumulation_steps=batch.accumulation,
        gradient_clipping=clipping,
        offload_optimizer=offload,
        dynamic_loss_scale=dynamic,
    )


def _dtype(
    path: Path, written: Mapping[str, Any], stage: int, default_dtype: Literal["fp32", "bf16"]
) -> Dtype:
    fp16 = written.get("fp16", {}).get("enabled", False) is True  # "auto" leaves the choice to bf16.enabled
    bf16 = written.get("bf16", {}).get("enabled", False)
    if bf16 == "auto":
        bf16 = default_dtype == "bf16" and not fp16
    if fp16 and bf16:
        raise UserError(f"{path}: bf16.enabled and fp16.enabled are both true: choose one of them")
    if fp16 and stage == 0:
        raise UserError(
            f"{path}: fp16 needs zero_optimization.stage 1, 2 or 3: "
            "at stage 0 DeepSpeed does not scale the loss"
        )
    return "fp16" if fp16 else "bf16" if bf16 else "fp32"


def _gradient_dtypes(path: Path, written: Mapping[str, Any], stage: int, dtype: Dtype) -> dict[str, Any]:
    """The two dtypes that decide how gradients are summed; fp32 where the file says nothing."""
    summed = written.get("data_types", {}).get("grad_accum_dtype", "fp32")
    if summed not in ("fp32", dtype):
        raise UserError(
            f'{path}: data_types.grad_accum_dtype must be "fp32" or the dtype of the run, {dtype}'
        )
    if stage == 0:
        # DeepSpeed takes no dtype here; the trainer has autograd itself sum in fp32.
        if summed != "fp32":
            raise UserError(
                f'{path}: data_types.grad_accum_dtype is always "fp32" at ZeRO stage 0: take it out'
            )
        return {"communication_data_type": written.get("communication_data_type", "fp32")}
    return {
        "data_types": {"grad_accum_dtype": summed},
        "communication_data_type": written.get("communication_data_type", "fp32"),
    }


def _gradient_path(stage: int, dtype: Dtype, offload: bool, types: Mapping[str, Any]) -> GradientPath:
    if stage == 0:
        return "stage 0"
    if stage == 3:
        return "stage 3"
    if stage == 1 and dtype == "bf16" and not offload and types["data_types"]["grad_accum_dtype"] == "fp32":
        return "stage 1 in bf16"
    return "stages 1 and 2"


def _refuse_without_effect(
    path: Path, written: Mapping[str, Any], dtype: Dtype, gradient_path: GradientPath
) -> None:
    """Raise UserError for keys that DeepSpeed would read and not use beside the others."""
    idle = []
    for section in ("zero_optimization", *({dtype} - {"fp32"})):
        known = TOP_LEVEL[section]
        assert isinstance(known, Section)
        for key in written.get(section, {}):
            decision = known.keys[key]
            if isinstance(decision, (Passed, Section)) and gradient_path not in decision.paths:
                idle.append(f"{section}.{key} (only at {' and '.join(decision.paths)})")
    if idle:
        raise UserError(
            f"{path}: without effect at {gradient_path} of ZeRO, so take it out: {', '.join(idle)}"
        )
    fp16 = written.get("fp16", {})
    idle = [f"fp16.{key}" for key in _DYNAMIC_SCALE_KEYS if key in fp16]
    if idle and dtype == "fp16" and fp16.get("loss_scale", 0):
        raise UserError(
            f"{path}: without effect beside a fixed fp16.loss_scale, so take it out: {', '.join(idle)}"
        )
    if _logs_communication(written) and not written["comms_logger"].get("verbose", True):
        raise UserError(
            f"{path}: comms_logger prints nothing unless verbose: take it out, or the false verbose"
        )
    printing = _prints_by_log(written)
    if printing and written.get("log_level", "info") not in ("debug", "info"):
        raise UserError(f'{path}: {printing[0]} prints at log_level "info" only: take one of them out')


def _resolved_sections(
    written: Mapping[str, Any], dtype: Dtype, stage: int, dynamic: DynamicLossScale | None
) -> dict[str, Any]:
    sections: dict[str, Any] = {"zero_optimization": {"stage": stage, **written.get("zero_optimization", {})}}
    for name in ("bf16", "fp16"):
        sections[name] = {**written.get(name, {}), "enabled": True} if name == dtype else {"enabled": False}
    if dynamic:
        sections["fp16"]["loss_scale_window"] = _NEVER
    if _logs_communication(written):
        sections["comms_logger"] = {**written["comms_logger"], "verbose": True}
    return sections


def _logs_communication(written: Mapping[str, Any]) -> bool:
    return bool(written.get("comms_logger", {}).get("enabled", False))


def _prints_by_log(written: Mapping[str, Any]) -> list[str]:
    """The keys that print through DeepSpeed's log, which is silent below warnings unless told otherwise."""
    keys = [key for key in ("steps_per_print", "dump_state") if written.get(key)]
    return keys + ["comms_logger"] * _logs_communication(written)


def _resolved_switches(written: Mapping[str, Any]) -> dict[str, Any]:
    """The top-level keys that are passed on, and what the trainer always says."""
    return {
        **{
            key: written[key]
            for key, decision in TOP_LEVEL.items()
            if isinstance(decision, Passed) and key in written
        },
        "log_level": written.get("log_level", "info" if _prints_by_log(written) else "warning"),
        # The trainer's optimizers are torch's or apex's, which DeepSpeed takes only on these two words.
        "zero_allow_untested_optimizer": written.get("zero_allow_untested_optimizer", True),
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed's throughput timer stops the device twice a step.
        "timers": {"throughput": {"enabled": False}},
        # The trainer sets it when it resumes with another number of processes.
        "checkpoint": {"load_universal": False},
    }
