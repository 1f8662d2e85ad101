"""Every way of being ill, made up, is found on its node and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from made_measurements import at_work, disk, gpu, healthy

from deltalm_ds.diagnosing.clocks import Clock
from deltalm_ds.diagnosing.findings import Finding
from deltalm_ds.diagnosing.judging import judge
from deltalm_ds.diagnosing.measurements import Measurements, RankMeasurements
from deltalm_ds.diagnosing.resources import Resources
from deltalm_ds.diagnosing.settings import Limits

LIMITS = Limits()
THIRD = 4  # the first rank of n3

Spoil = Callable[[RankMeasurements], object]


def resources(**changes: int) -> Resources:
    made = Resources(memory_bytes=10**12, shared_memory_bytes=10**11, open_files=65_536)
    made.update(**changes)  # type: ignore[typeddict-item]
    return made


def put(**fields: object) -> Spoil:
    return lambda rank: [setattr(rank, name, value) for name, value in fields.items()]


FAULTS: list[tuple[Spoil, str]] = [
    (
        put(versions={"python": "3.11.7", "torch": "2.12.0", "GPUs": "8"}),
        "torch is 2.12.0, and 2.13.0 on ranks",
    ),
    (put(versions={"python": "3.11.7", "torch": "2.13.0", "GPUs": "0"}), "GPUs is 0, and 8 on ranks"),
    (put(data="0dd"), "--data is 0dd, and 5eed on ranks 0, 1, 2, 3, 5"),
    (put(resources=resources(memory_bytes=12 * 10**9)), "12 GB of memory free for 2 ranks, below 16"),
    (put(disk=disk(free_bytes=10**10)), "10 GB free for --output, below 50"),
    (put(disk=disk(write_bytes_per_second=1e8)), "writes --output at 100.0 MB/s, 0.05 of the nodes' median"),
    (put(disk=disk(read_bytes_per_second=3e8)), "reads --output at 300.0 MB/s, 0.1 of the nodes' median"),
    (
        put(clock=Clock(offset_seconds=-9.0, uncertainty_seconds=0.01)),
        "its clock is 9.0 s behind the others'",
    ),
    (put(gpu=gpu(uncorrected_errors=3)), "GPU of rank 4: 3 uncorrected ECC errors"),
    (put(gpu=gpu(is_remapping_failed=True)), "no spare memory rows"),
    (put(gpu=gpu(driver="535.1")), "driver is 535.1, and 550.54.15 on"),
    (put(gpu=gpu(name="NVIDIA A100")), "GPU is NVIDIA A100, and NVIDIA H100"),
    (put(gpu=gpu(memory_bytes=7 * 10**10, other_processes=[77])), "70 GB of its memory.*processes: 77"),
    (put(gpu_at_work=at_work(throttle_reasons=0x48)), "slowed down by the hardware, the hardware for heat$"),
    (put(gpu_at_work=at_work(throttle_reasons=0x80)), "external power brake"),
    (put(gpu_at_work=at_work(clock_mhz=345.0)), "345 MHz under load, 0.17 of its highest 1,980"),
    (put(product=4e14), "rank 4 multiplies at 400 TFLOP/s, 0.67 of the median"),
    (put(pairs=[2e10, 1e10]), "rank 4 reduces at 20 GB/s with its best partner, 0.4 of the median"),
    (put(failures={"product": "CUDA error"}), "the matrix product failed on rank 4: CUDA error"),
]

WARNINGS: list[tuple[Spoil, str]] = [
    (put(resources=resources(shared_memory_bytes=64_000_000)), "0.064 GB free in /dev/shm, below 1"),
    (put(resources=resources(open_files=1024)), "at most 1,024 open files, below 4,096"),
    (put(gpu=gpu(is_remapping_pending=True)), "wait for a reset"),
    (put(gpu=gpu(other_processes=[77, 78])), "other processes use it: 77, 78"),
    (put(gpu=None), "there is no nvidia-smi"),
    (put(gpu_at_work=at_work(throttle_reasons=0x20)), "slowed down by the driver for heat"),
    (put(gpu_at_work=at_work(celsius=91.0)), "91 °C under load, above 85"),
]


def only_finding(spoil: Spoil) -> Finding:
    measured = healthy()
    spoil(measured.ranks[THIRD])
    (finding,) = judge(measured, LIMITS)
    return finding


def test_healthy_machines_have_nothing() -> None:
    assert judge(healthy(), LIMITS) == []
    assert judge(Measurements(ranks=[RankMeasurements(rank=0, node="n1")]), LIMITS) == []


@pytest.mark.parametrize(("spoil", "reason"), FAULTS)
def test_faults(spoil: Spoil, reason: str) -> None:
    finding = only_finding(spoil)
    assert (finding.node, finding.is_fault) == ("n3", True)
    assert re.search(reason, finding.reason), finding.reason


@pytest.mark.parametrize(("spoil", "reason"), WARNINGS)
def test_warnings(spoil: Spoil, reason: str) -> None:
    finding = only_finding(spoil)
    assert (finding.node, finding.is_fault) == ("n3", False)
    assert re.search(reason, finding.reason), finding.reason


def test_what_a_gpu_does_not_say_is_no_fault() -> None:
    measured = healthy()
    measured.ranks[0].gpu = gpu(memory_bytes=None, uncorrected_errors=None)
    measured.ranks[0].gpu_at_work = at_work(celsius=None, clock_mhz=None, max_clock_mhz=None)
    assert judge(measured, LIMITS) == []


def test_who_did_not_finish_a_stage() -> None:
    measured = healthy()
    measured.absent["disk"] = [2, 3]
    (finding,) = judge(measured, LIMITS)
    assert (finding.node, finding.reason) == ("n2", "ranks 2, 3 did not finish writing to --output in time")


def test_a_slow_node_of_two_is_told_from_its_partner_by_other_partners_and_not_otherwise() -> None:
    """A slow port of a node of two ranks shows in all pairs of its rank; of nodes of one rank, in both."""
    measured = healthy(2, 2)
    for rank, pairs in zip(
        measured.ranks, ([5e10, 5e10], [5e10, 1e10], [1e10, 1e10], [5e10, 5e10]), strict=True
    ):
        rank.pairs = pairs
    (finding,) = judge(measured, LIMITS)
    assert (finding.node, finding.reason[:6]) == ("n2", "rank 2")

    measured = healthy(2, 1)
    for rank in measured.ranks:
        rank.pairs = [1e9]
    assert judge(measured, LIMITS) == []


def test_all_reduce_below_the_least_is_of_no_node_unless_one_is_slow() -> None:
    limits = Limits(min_all_reduce_gigabytes_per_second=50)
    (finding,) = judge(healthy(), limits)
    assert finding.node is None
    assert "all ranks reduce at 40 GB/s, below 50, and none is slower" in finding.reason
    measured = healthy()
    measured.ranks[THIRD].pairs = [1e10]
    assert [found.node for found in judge(measured, limits)] == ["n3", None]


def test_of_two_clocks_the_reason_says_that_either_may_be_wrong() -> None:
    measured = healthy(2, 1)
    measured.ranks[1].clock = Clock(offset_seconds=30.0, uncertainty_seconds=0.01)
    (finding,) = judge(measured, LIMITS)
    assert finding.node == "n2"
    assert "30.0 s ahead of the others', or theirs is wrong" in finding.reason
