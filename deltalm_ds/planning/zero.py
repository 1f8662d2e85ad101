"""What a DeepSpeed configuration says about memory and communication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deltalm_ds.training.deepspeed_schema import GradientPath

Dtype = Literal["fp32", "bf16"]

GRADIENT_BYTES = 4
"""Gradients are summed and reduced in fp32, masters and moments are fp32."""

# Where the file says nothing: DeepSpeed 0.19, runtime/zero/config.py.
_BUCKET = 500_000_000
_PREFETCH = 50_000_000
_PERSISTENT = 100_000
_LIVE = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class ZeroSettings:
    """ZeRO's settings; sizes in numbers, not bytes, as in DeepSpeed's JSON."""

    stage: int
    dtype: Dtype
    """Of the weights that the passes read."""
    reduce_bucket: int
    overlaps: bool
    """Whether gradients are reduced while others are computed; then there are two buckets."""
    prefetch_bucket: int
    persistent_size: int
    """Stage 3 keeps parameters up to this size gathered."""
    max_live: int
    """Stage 3 prefetches no further than to so many gathered numbers."""
    max_reuse: int
    """Stage 3 keeps what is used again within so many numbers."""
    sub_group: int
    """Stage 3 updates so many numbers at once."""
    reduces_to_owner: bool
    """Whether stages 1 and 2 send each gradient to its owner alone, instead of to all ranks."""

    @classmethod
    def of(cls, zero: Mapping[str, Any], dtype: Dtype) -> ZeroSettings:
        """Those of a section zero_optimization, with DeepSpeed's defaults."""
        stage = zero["stage"]
        return cls(
            stage=stage,
            dtype=dtype,
            reduce_bucket=zero.get("reduce_bucket_size", _BUCKET),
            overlaps=zero.get("overlap_comm", stage == 3),
            prefetch_bucket=zero.get("stage3_prefetch_bucket_size", _PREFETCH),
            persistent_size=zero.get("stage3_param_persistence_threshold", _PERSISTENT),
            max_live=zero.get("stage3_max_live_parameters", _LIVE),
            max_reuse=zero.get("stage3_max_reuse_distance", _LIVE),
            sub_group=zero.get("sub_group_size", _LIVE),
            reduces_to_owner=not zero.get("use_multi_rank_bucket_allreduce", True),
        )

    @property
    def weight_bytes(self) -> int:
        """Of one number."""
        return 4 if self.dtype == "fp32" else 2

    @property
    def path(self) -> GradientPath:
        """Which of DeepSpeed's implementations runs."""
        if self.stage in (0, 3):
            return "stage 0" if self.stage == 0 else "stage 3"
        return "stage 1 in bf16" if self.stage == 1 and self.dtype == "bf16" else "stages 1 and 2"
