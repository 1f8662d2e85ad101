"""All that was measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from deltalm_ds.diagnosing.clocks import Clock
from deltalm_ds.diagnosing.disk import Disk
from deltalm_ds.diagnosing.gpus import GpuAtRest, GpuAtWork
from deltalm_ds.diagnosing.resources import Resources

STAGES = {
    "arrival": "arrival",
    "versions": "versions",
    "resources": "memory and limits",
    "data": "reading --data",
    "disk": "writing to --output",
    "clock": "comparing clocks",
    "joining": "joining the process group",
    "gpu": "the GPU at rest",
    "product": "the matrix product",
    "pairs": "all-reduce by pairs",
    "all_reduce": "all-reduce of all",
    "leaving": "leaving the process group",
}
"""What is measured, in this order, in words."""


@dataclass(kw_only=True)
class RankMeasurements:
    """Of one rank; None for what was not measured there."""

    rank: int
    node: str
    versions: dict[str, str] | None = None
    resources: Resources | None = None
    data: str | None = None
    """Fingerprint of --data."""
    disk: Disk | None = None
    """On the first rank of a node."""
    clock: Clock | None = None
    """On the first rank of a node."""
    joining: str | None = None
    """The device it computes on, "cpu" or "cuda"."""
    gpu: GpuAtRest | None = None
    product: float | None = None
    """FLOP/s."""
    gpu_at_work: GpuAtWork | None = None
    pairs: list[float] = field(default_factory=list)
    """Bus bandwidths with its partners, bytes/s."""
    failures: dict[str, str] = field(default_factory=dict)
    """By stage, why it could not be measured."""


@dataclass(kw_only=True)
class Measurements:
    """Of all ranks."""

    ranks: list[RankMeasurements]
    all_reduce: float | None = None
    """Bus bandwidth of an all-reduce over all, bytes/s, on rank 0."""
    absent: dict[str, list[int]] = field(default_factory=dict)
    """By stage, the ranks that did not finish it in time."""

    @property
    def nodes(self) -> list[str]:
        """In the order of their ranks."""
        return list(dict.fromkeys(rank.node for rank in self.ranks))

    def of_node(self, node: str) -> list[RankMeasurements]:
        """Its ranks."""
        return [rank for rank in self.ranks if rank.node == node]
