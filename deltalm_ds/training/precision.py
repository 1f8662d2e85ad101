"""Which type of numbers a run takes where nobody says one."""

from __future__ import annotations

from typing import Literal

import torch

from deltalm_ds.ops.products import cpu_has_matrix_unit


def default_dtype(device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where the device has matrix units for it, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_has_matrix_unit() else "fp32"
