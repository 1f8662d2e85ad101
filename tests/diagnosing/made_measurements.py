"""Measurements of healthy machines, made up, to spoil one at a time."""

from __future__ import annotations

from typing import Any

from deltalm_ds.diagnosing.clocks import Clock
from deltalm_ds.diagnosing.disk import Disk
from deltalm_ds.diagnosing.gpus import GpuAtRest, GpuAtWork
from deltalm_ds.diagnosing.measurements import Measurements, RankMeasurements
from deltalm_ds.diagnosing.resources import Resources


def healthy(num_nodes: int = 3, ranks_per_node: int = 2) -> Measurements:
    """Nodes n1, n2, … with GPUs."""
    ranks = []
    for rank in range(num_nodes * ranks_per_node):
        is_first = rank % ranks_per_node == 0
        ranks.append(
            RankMeasurements(
                rank=rank,
                node=f"n{rank // ranks_per_node + 1}",
                versions={"python": "3.11.7", "torch": "2.13.0", "GPUs": "8"},
                resources=Resources(memory_bytes=10**12, shared_memory_bytes=10**11, open_files=65_536),
                data="5eed",
                disk=disk() if is_first else None,
                clock=Clock(offset_seconds=0.001 * rank, uncertainty_seconds=0.0005) if is_first else None,
                joining="cuda",
                gpu=gpu(),
                product=6e14,
                gpu_at_work=at_work(),
                pairs=[4e10, 5e10, 4.5e10],
            )
        )
    return Measurements(ranks=ranks, all_reduce=4e10)


def disk(**changes: Any) -> Disk:
    made = Disk(write_bytes_per_second=2e9, read_bytes_per_second=3e9, free_bytes=10**13)
    made.update(**changes)
    return made


def gpu(**changes: Any) -> GpuAtRest:
    made = GpuAtRest(
        name="NVIDIA H100 80GB HBM3",
        driver="550.54.15",
        memory_bytes=5 * 10**8,
        uncorrected_errors=0,
        is_remapping_pending=False,
        is_remapping_failed=False,
        other_processes=[],
    )
    made.update(**changes)
    return made


def at_work(**changes: Any) -> GpuAtWork:
    made = GpuAtWork(celsius=60.0, clock_mhz=1500.0, max_clock_mhz=1980.0, throttle_reasons=0x4)
    made.update(**changes)
    return made
