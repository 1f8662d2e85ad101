"""The DeepSpeed configurations that a plan is for, and that it writes."""

from __future__ import annotations

from typing import Any

from deltalm_ds.planning.zero import Dtype, ZeroSettings

STAGES = (0, 1, 2, 3)
SECTIONS: dict[int, dict[str, Any]] = {
    0: {"stage": 0},
    1: {"stage": 1, "allgather_bucket_size": 500_000_000},
    2: {
        "stage": 2,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 500_000_000,
    },
    3: {
        "stage": 3,
        "overlap_comm": True,
        "contiguous_gradients": True,
        "reduce_bucket_size": 50_000_000,
        "stage3_prefetch_bucket_size": 50_000_000,
        "stage3_param_persistence_threshold": 100_000,
        "stage3_max_live_parameters": 1_000_000_000,
        "stage3_max_reuse_distance": 1_000_000_000,
    },
}
"""zero_optimization of each stage, as in ds_configs/."""


def zero_settings(stage: int, dtype: Dtype) -> ZeroSettings:
    """What a stage's section says."""
    return ZeroSettings.of(SECTIONS[stage], dtype)


def configuration(stage: int, dtype: Dtype, batch_size: int, micro_batch_size: int) -> dict[str, Any]:
    """DeepSpeed's JSON for a run; accumulation follows from the number of processes."""
    return {
        "train_batch_size": batch_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": dtype == "bf16"},
        "zero_optimization": SECTIONS[stage],
    }
