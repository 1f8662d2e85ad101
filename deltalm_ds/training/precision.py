"""Which type of numbers a run takes where nobody says one, and which it cannot take."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from deepspeed.accelerator import get_accelerator

from deltalm_ds.errors import UserError
from deltalm_ds.ops.products import cpu_has_matrix_unit

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By the name of a run's dtype."""


def default_dtype(device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where the device has matrix units for it, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_has_matrix_unit() else "fp32"


def check_dtype(dtype: Literal["fp32", "bf16", "fp16"], path: Path) -> None:
    """Raise UserError if DeepSpeed does not run `dtype`, which the configuration at `path` asks for, here."""
    if dtype == "fp16" and not get_accelerator().is_fp16_supported():
        raise UserError(
            f"{path}: DeepSpeed runs no fp16 on this machine's {get_accelerator().device_name()}: "
            "take a configuration without it, such as ds_configs/zero2.json"
        )
