"""The optimizer that DeepSpeed wraps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from deltalm_ds.errors import UserError
from deltalm_ds.ops import FusedAdamW
from deltalm_ds.ops.cuda.choice import by_kernel
from deltalm_ds.training.schedule import ScheduleName

OptimizerName = Literal["adamw", "apex"]
_NUMBERS = (
    *("learning_rate", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("weight_decay", "gradient_clipping"),
)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Optimizer and learning rate."""

    optimizer: OptimizerName = "adamw"
    """AdamW, by our kernel or torch's, or FusedAdam of NVIDIA's apex where that is installed."""
    learning_rate: float | None = None
    """Peak learning rate. Default by preset: 1e-4 for xxl, 1.6e-4 xl, 2e-4 large and base,
    5e-4 small, 1e-3 mini and tiny."""
    schedule: ScheduleName = "linear"
    """After warm-up: linear to zero at the last step, or inverse square root of the step."""
    warmup_steps: int | None = None
    """Optimizer steps of warm-up. Default: 10,000 from base on, a tenth of the run for the others."""
    adam_beta1: float = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: float = 0.999
    """Decay of Adam's second moment."""
    adam_epsilon: float = 1e-8
    """Added to the root of Adam's second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases and LayerNorms have none."""
    gradient_clipping: float = 1.0
    """Largest gradient norm, 0 for none; a number in the DeepSpeed configuration goes before it."""

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be a finite number, not {value}")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise UserError(f"--learning-rate must be above 0, not {self.learning_rate}")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise UserError(f"--warmup-steps must not be negative, but is {self.warmup_steps}")
        if not (0 <= self.adam_beta1 < 1 and 0 <= self.adam_beta2 < 1):
            raise UserError("--adam-beta1 and --adam-beta2 must lie in [0, 1)")
        if self.weight_decay < 0 or self.gradient_clipping < 0 or self.adam_epsilon <= 0:
            raise UserError(
                "--weight-decay and --gradient-clipping must be at least 0, --adam-epsilon above 0"
            )


def check_optimizer(settings: OptimizerSettings, device: torch.device, *, offload: bool) -> None:
    """UserError for an optimizer that cannot run where it would: on `device`, or offloaded to the CPU."""
    if settings.optimizer != "apex":
        return
    if offload:
        raise UserError(
            "--optimizer apex runs on GPUs only, and zero_optimization.offload_optimizer of the DeepSpeed "
            "configuration puts the optimizer on the CPU: use --optimizer adamw, or take the offload out"
        )
    if device.type == "cpu":
        raise UserError(
            "--optimizer apex runs on GPUs only, and this run is on the CPU: use --optimizer adamw"
        )


def build_optimizer(
    model: nn.Module, settings: OptimizerSettings, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over what of `model` is trained, decay on matrices only; the learning rate is set at every step.

    `device` is where the optimizer will run, the CPU where ZeRO keeps its state in host memory. There torch's
    fused AdamW runs, and on a GPU our kernel or torch's (ops/cuda/choice.py).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() > 1]
    vectors = [parameter for parameter in trained if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    common = {
        "lr": 0.0,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_epsilon,
    }
    if settings.optimizer == "apex":
        try:
            from apex.optimizers import FusedAdam
        except ImportError:
            raise UserError(
                "--optimizer apex: NVIDIA's apex is not installed (PyPI's apex is another package); "
                "build it from source, or use --optimizer adamw"
            ) from None
        return FusedAdam(groups, adam_w_mode=True, **common)
    if by_kernel("adam", device.type):
        return FusedAdamW(groups, **common)  # type: ignore[arg-type]
    return torch.optim.AdamW(groups, fused=True, **common)  # type: ignore[arg-type]
