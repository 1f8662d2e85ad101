"""From measurements to findings."""

from __future__ import annotations

from collections.abc import Iterator

from deltalm_ds.diagnosing.findings import Finding, counted, ranks_in_words
from deltalm_ds.diagnosing.gpus import coolings, slowdowns
from deltalm_ds.diagnosing.measurements import STAGES, Measurements, RankMeasurements
from deltalm_ds.diagnosing.outliers import skewed_ones, slow_ones, usual
from deltalm_ds.diagnosing.settings import Limits

_OF_MACHINE = ("gpu", "product")


def judge(measured: Measurements, limits: Limits) -> list[Finding]:
    """All that is wrong, by node and in the order of measuring. None where nothing was measured."""
    found = [
        *_failures(measured),
        *_absences(measured),
        *_differences(measured),
        *_resources(measured, limits),
        *_disks(measured, limits),
        *_clocks(measured, limits),
        *(finding for rank in measured.ranks for finding in _gpu(rank, limits)),
        *_speeds(measured, limits),
    ]
    nodes = measured.nodes
    return sorted(found, key=lambda finding: nodes.index(finding.node) if finding.node else len(nodes))


def _failures(measured: Measurements) -> Iterator[Finding]:
    for rank in measured.ranks:
        for stage, failure in rank.failures.items():
            reason = f"{STAGES[stage]} failed on rank {rank.rank}: {failure}"
            yield Finding(node=rank.node, check=stage, reason=reason, is_of_machine=stage in _OF_MACHINE)


def _absences(measured: Measurements) -> Iterator[Finding]:
    for stage, absent in measured.absent.items():
        for node in measured.nodes:
            ranks = [rank.rank for rank in measured.of_node(node) if rank.rank in absent]
            if ranks:
                reason = f"{ranks_in_words(ranks)} did not finish {STAGES[stage]} in time"
                yield Finding(node=node, check=stage, reason=reason, is_of_machine=stage in _OF_MACHINE)


def _differences(measured: Measurements) -> Iterator[Finding]:
    """Versions and data that are not those of most ranks."""
    compared: dict[str, dict[int, str]] = {}
    for rank in measured.ranks:
        values = dict(rank.versions or {})
        if rank.gpu is not None:
            values |= {"driver": rank.gpu["driver"], "GPU": rank.gpu["name"]}
        if rank.data is not None:
            values["--data"] = rank.data
        for name, value in values.items():
            compared.setdefault(name, {})[rank.rank] = value
    for name, by_rank in compared.items():
        right = usual(list(by_rank.values()))
        for node in measured.nodes:
            others = {by_rank.get(rank.rank, right) for rank in measured.of_node(node)} - {right}
            if others:
                agreeing = [rank for rank, value in by_rank.items() if value == right]
                reason = f"{name} is {', '.join(sorted(others))}, and {right} on {ranks_in_words(agreeing)}"
                yield Finding(node=node, check=name, reason=reason)


def _resources(measured: Measurements, limits: Limits) -> Iterator[Finding]:
    for node in measured.nodes:
        ranks = measured.of_node(node)
        seen = ranks[0].resources
        if seen is None:
            continue
        needed = limits.min_memory_gigabytes * 1e9 * len(ranks)
        if seen["memory_bytes"] < needed:
            free = _giga(seen["memory_bytes"])
            reason = f"{free} GB of memory free for {counted(len(ranks), 'rank')}, below {_giga(needed)}"
            yield Finding(node=node, check="memory", reason=reason)
        shared = seen["shared_memory_bytes"]
        if shared < limits.min_shared_memory_gigabytes * 1e9:
            reason = f"{_giga(shared)} GB free in /dev/shm, below {limits.min_shared_memory_gigabytes:g}"
            yield Finding(node=node, check="/dev/shm", reason=reason, is_fault=False)
        if seen["open_files"] < limits.min_open_files:
            reason = f"at most {seen['open_files']:,} open files, below {limits.min_open_files:,} (ulimit -n)"
            yield Finding(node=node, check="open files", reason=reason, is_fault=False)


def _disks(measured: Measurements, limits: Limits) -> Iterator[Finding]:
    disks = {rank.node: rank.disk for rank in measured.ranks if rank.disk is not None}
    for node, disk in disks.items():
        if disk["free_bytes"] < limits.min_free_gigabytes * 1e9:
            reason = f"{_giga(disk['free_bytes'])} GB free for --output, below {limits.min_free_gigabytes:g}"
            yield Finding(node=node, check="space", reason=reason)
    for way, speeds in (
        ("writes", {node: disk["write_bytes_per_second"] for node, disk in disks.items()}),
        ("reads", {node: disk["read_bytes_per_second"] for node, disk in disks.items()}),
    ):
        for node, share in slow_ones(speeds, limits.min_disk_share).items():
            reason = f"{way} --output at {speeds[node] / 1e6:,.1f} MB/s, {share:.2g} of the nodes' median"
            yield Finding(node=node, check=way, reason=reason)


def _clocks(measured: Measurements, limits: Limits) -> Iterator[Finding]:
    clocks = {rank.node: rank.clock for rank in measured.ranks if rank.clock is not None}
    skewed = skewed_ones(
        {node: clock["offset_seconds"] for node, clock in clocks.items()},
        {node: clock["uncertainty_seconds"] for node, clock in clocks.items()},
        limits.max_clock_skew_seconds,
    )
    for node, difference in skewed.items():
        side = "ahead of" if difference > 0 else "behind"
        reason = f"its clock is {abs(difference):,.1f} s {side} the others'"
        if len(clocks) == 2:
            reason += ", or theirs is wrong: of two, rank 0's node is believed"
        yield Finding(node=node, check="clock", reason=reason)


def _gpu(rank: RankMeasurements, limits: Limits) -> Iterator[Finding]:
    def wrong(check: str, reason: str, is_fault: bool = True) -> Finding:
        of_rank = f"GPU of rank {rank.rank}: {reason}"
        return Finding(node=rank.node, check=check, reason=of_rank, is_fault=is_fault, is_of_machine=is_fault)

    rest, work = rank.gpu, rank.gpu_at_work
    if rank.joining not in (None, "cpu") and rest is None and "gpu" not in rank.failures:
        yield wrong("nvidia-smi", "its health was not checked, for there is no nvidia-smi", is_fault=False)
    if rest is not None:
        if rest["uncorrected_errors"]:
            yield wrong(
                "ECC", f"{rest['uncorrected_errors']:,} uncorrected ECC errors since its driver was loaded"
            )
        if rest["is_remapping_failed"]:
            yield wrong("rows", "no spare memory rows are left for broken ones")
        if rest["is_remapping_pending"]:
            yield wrong(
                "rows", "broken memory rows wait for a reset of the GPU to be replaced", is_fault=False
            )
        memory = rest["memory_bytes"]
        if memory is not None and memory > limits.max_gpu_memory_gigabytes * 1e9:
            held = f"{_giga(memory)} GB of its memory were in use, above {limits.max_gpu_memory_gigabytes:g}"
            by = "; other processes: " + ", ".join(map(str, rest["other_processes"]))
            yield wrong("GPU memory", held + (by if rest["other_processes"] else ""))
        elif rest["other_processes"]:
            others = ", ".join(map(str, rest["other_processes"]))
            yield wrong("GPU processes", f"other processes use it: {others}", is_fault=False)
    if work is not None:
        for named, is_fault in ((slowdowns, True), (coolings, False)):
            if causes := named(work["throttle_reasons"]):
                yield wrong("throttling", f"slowed down by {', '.join(causes)}", is_fault)
        clock, most = work["clock_mhz"], work["max_clock_mhz"]
        if clock is not None and most and clock < limits.min_clock_share * most:
            reason = f"{clock:,.0f} MHz under load, {clock / most:.2f} of its highest {most:,.0f}"
            yield wrong("GPU clock", reason)
        if work["celsius"] is not None and work["celsius"] > limits.max_gpu_celsius:
            reason = f"{work['celsius']:.0f} °C under load, above {limits.max_gpu_celsius:g}"
            yield wrong("temperature", reason, is_fault=False)


def _speeds(measured: Measurements, limits: Limits) -> Iterator[Finding]:
    node_of = {rank.rank: rank.node for rank in measured.ranks}
    products = {rank.rank: rank.product for rank in measured.ranks if rank.product is not None}
    for rank, share in slow_ones(products, limits.min_product_share).items():
        reason = f"rank {rank} multiplies at {products[rank] / 1e12:.3g} TFLOP/s, {share:.2g} of the median"
        yield Finding(node=node_of[rank], check="product", reason=reason, is_of_machine=True)
    pairs = {rank.rank: max(rank.pairs) for rank in measured.ranks if rank.pairs}
    slow = slow_ones(pairs, limits.min_pair_share)
    for rank, share in slow.items():
        speed = f"{_giga(pairs[rank], 3)} GB/s"
        reason = f"rank {rank} reduces at {speed} with its best partner, {share:.2g} of the median"
        yield Finding(node=node_of[rank], check="pairs", reason=reason, is_of_machine=True)
    least = limits.min_all_reduce_gigabytes_per_second
    if measured.all_reduce is not None and measured.all_reduce < least * 1e9:
        reason = f"all ranks reduce at {_giga(measured.all_reduce, 3)} GB/s, below {least:g}"
        if not slow:
            reason += ", and none is slower than the others: look at the network's settings"
        yield Finding(node=None, check="all-reduce", reason=reason)


def _giga(count: float, digits: int = 4) -> str:
    return f"{count / 1e9:,.0f}" if count >= 1e12 else f"{count / 1e9:.{digits}g}"
