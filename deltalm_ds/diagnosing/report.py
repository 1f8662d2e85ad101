"""What people and programs are told: a table by node, a line for each unfit one, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from deltalm_ds.diagnosing.findings import EXIT_MISTAKE, EXIT_UNFIT, Finding, Verdict, counted
from deltalm_ds.diagnosing.measurements import Measurements, RankMeasurements
from deltalm_ds.diagnosing.outliers import usual
from deltalm_ds.diagnosing.settings import DoctorSettings
from deltalm_ds.tables import format_table

_NOTHING = "-"
Column = Callable[[list[RankMeasurements]], float | None]


def describe(measured: Measurements, findings: Sequence[Finding], verdict: Verdict) -> str:
    """The whole report for people."""
    lines = _lines(measured, findings, verdict)
    return "\n".join(["", *_common(measured), "", _table(measured, findings), "", *lines])


def as_json(
    measured: Measurements, findings: Sequence[Finding], verdict: Verdict, settings: DoctorSettings
) -> str:
    """All measurements in SI units, all findings, the verdict, and the limits that it was made by."""
    content = {
        "exit_code": verdict.exit_code,
        "exclude": verdict.excluded,
        "findings": [asdict(finding) for finding in findings],
        "limits": asdict(settings.limits),
        **asdict(measured),
    }
    return json.dumps(content, indent=1) + "\n"


def _common(measured: Measurements) -> Iterator[str]:
    versions = [rank.versions for rank in measured.ranks if rank.versions is not None]
    if versions:
        names = (f"{name} {usual([found[name] for found in versions])}" for name in versions[0])
        yield "  ".join(names)
    if measured.all_reduce is not None:
        speed = f"{measured.all_reduce / 1e9:.3g} GB/s (bus bandwidth)"
        yield f"all-reduce over {len(measured.ranks)} ranks: {speed}"
    gpus = [rank.gpu for rank in measured.ranks if rank.gpu is not None]
    if gpus:
        name, driver = usual([gpu["name"] for gpu in gpus]), usual([gpu["driver"] for gpu in gpus])
        yield f"{len(gpus)} x {name}, driver {driver}"
    elif all(rank.joining == "cpu" for rank in measured.ranks):
        yield "no GPU is used: GPU health was not checked"


def _table(measured: Measurements, findings: Sequence[Finding]) -> str:
    rows = []
    for node in measured.nodes:
        of_node = [finding for finding in findings if finding.node == node]
        state = "bad" if any(finding.is_fault for finding in of_node) else "warned" if of_node else "well"
        ranks = measured.of_node(node)
        rows.append([node, str(len(ranks)), *(_number(column(ranks)) for column in _COLUMNS.values()), state])
    headings = ["node", "ranks", *_COLUMNS, "state"]
    kept = [place for place in range(len(headings)) if any(row[place] != _NOTHING for row in rows)]
    return format_table([[row[place] for place in kept] for row in (headings, *rows)])


def _lines(measured: Measurements, findings: Sequence[Finding], verdict: Verdict) -> Iterator[str]:
    """One line a node that is bad, one a node that is warned of, and the verdict."""
    for is_fault, word in ((True, "is bad"), (False, "has a warning")):
        for node in dict.fromkeys(finding.node for finding in findings):
            found = [finding for finding in findings if (finding.node, finding.is_fault) == (node, is_fault)]
            if found:
                yield f"{node or 'no one node'} {word}: {'; '.join(finding.reason for finding in found)}"
    if verdict.exit_code == EXIT_UNFIT:
        without = ", ".join(verdict.excluded) or "the nodes that did not answer"
        yield f"unfit: start the job without {without}"
    elif verdict.exit_code == EXIT_MISTAKE:
        yield "unfit, and no node more than the others, so none is excluded: mend it, or change the limit"
    else:
        ranks, nodes = counted(len(measured.ranks), "rank"), counted(len(measured.nodes), "node")
        yield f"fit: {ranks} on {nodes}"


def _number(value: float | None) -> str:
    if value is None:
        return _NOTHING
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _lowest(values: Iterator[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _of_first(part: str, key: str, unit: float) -> Column:
    """A number of what is measured once a node."""

    def column(ranks: list[RankMeasurements]) -> float | None:
        seen = getattr(ranks[0], part)
        return None if seen is None else seen[key] / unit

    return column


def _product(ranks: list[RankMeasurements]) -> float | None:
    lowest = _lowest(rank.product for rank in ranks)
    return None if lowest is None else lowest / 1e12


def _pairs(ranks: list[RankMeasurements]) -> float | None:
    lowest = _lowest(max(rank.pairs, default=None) for rank in ranks)
    return None if lowest is None else lowest / 1e9


def _celsius(ranks: list[RankMeasurements]) -> float | None:
    seen = [rank.gpu_at_work["celsius"] for rank in ranks if rank.gpu_at_work is not None]
    return max((celsius for celsius in seen if celsius is not None), default=None)


def _clock_mhz(ranks: list[RankMeasurements]) -> float | None:
    return _lowest(rank.gpu_at_work["clock_mhz"] for rank in ranks if rank.gpu_at_work is not None)


_COLUMNS: dict[str, Column] = {
    "TFLOP/s": _product,
    "pair GB/s": _pairs,
    "write MB/s": _of_first("disk", "write_bytes_per_second", 1e6),
    "read MB/s": _of_first("disk", "read_bytes_per_second", 1e6),
    "free GB": _of_first("disk", "free_bytes", 1e9),
    "clock ms": _of_first("clock", "offset_seconds", 1e-3),
    "memory GB": _of_first("resources", "memory_bytes", 1e9),
    "shm GB": _of_first("resources", "shared_memory_bytes", 1e9),
    "files": _of_first("resources", "open_files", 1),
    "GPU °C": _celsius,
    "GPU MHz": _clock_mhz,
}
"""By heading, what a node's worst rank has, or what is measured once a node."""
