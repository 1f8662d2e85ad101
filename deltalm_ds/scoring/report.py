"""Reports of directions as tables and as JSON, with averages over directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deltalm_ds.scoring.evaluation import DirectionReport, Subset
from deltalm_ds.scoring.outputs import OutputCounts
from deltalm_ds.scoring.settings import ScoreSettings
from deltalm_ds.tables import format_table
from deltalm_ds.text.printable import printable


@dataclass(frozen=True)
class _Average:
    """Unweighted means over directions, by column."""

    name: str
    num_directions: int
    values: dict[str, float]
    baseline: dict[str, float] | None
    """None unless all of them have one."""


def describe(reports: Sequence[DirectionReport], settings: ScoreSettings) -> str:
    """Tables of scores and of outputs, and the signatures."""
    tables = [_scores(reports, settings), _outputs(reports), "\n".join(_signatures(reports, settings))]
    return "\n\n".join(tables)


def as_json(reports: Sequence[DirectionReport], settings: ScoreSettings) -> dict[str, Any]:
    """All numbers; scores from 0 to 100, shares and p-values from 0 to 1."""
    content: dict[str, Any] = {"directions": [_direction(report) for report in reports]}
    if settings.manifest is not None:
        content["averages"] = {
            average.name: {
                "num_directions": average.num_directions,
                "values": average.values,
                "baseline": average.baseline,
            }
            for average in _averages(reports)
        }
    if settings.confidence:
        content["intervals"] = _drawn(settings, "bootstrap")
    if any(report.direction.baseline for report in reports):
        content["paired_test"] = _drawn(settings, settings.paired_test)
    return content


def _drawn(settings: ScoreSettings, method: str) -> dict[str, Any]:
    return {"method": method, "resamples": settings.resamples, "seed": settings.seed}


def _direction(report: DirectionReport) -> dict[str, Any]:
    direction = report.direction
    return {
        "name": direction.name,
        "source_language": direction.source_language,
        "target_language": direction.language,
        "signatures": report.signatures,
        **_subset(report.whole),
        "groups": {subset.name: _subset(subset) for subset in report.groups},
        "seen": report.seen and _subset(report.seen),
        "unseen": report.unseen and _subset(report.unseen),
        "outputs": _counts(report.outputs),
        "baseline_outputs": report.baseline_outputs and _counts(report.baseline_outputs),
    }


def _subset(subset: Subset) -> dict[str, Any]:
    metrics = {name: asdict(result) for name, result in subset.results.items()}
    return {"num_examples": subset.num_examples, "metrics": metrics}


def _counts(outputs: OutputCounts) -> dict[str, Any]:
    return {**asdict(outputs), "right_language": outputs.right_language}


def _averages(reports: Sequence[DirectionReport]) -> list[_Average]:
    chosen = {
        "all directions": reports,
        "X→en": [report for report in reports if report.direction.to_english],
        "en→X": [report for report in reports if report.direction.from_english],
    }
    return [_average(name, some) for name, some in chosen.items() if some]


def _average(name: str, reports: Sequence[DirectionReport]) -> _Average:
    columns = reports[0].columns
    own = [_by_column(report.whole, "parts") for report in reports]
    others = [_by_column(report.whole, "baseline") for report in reports if report.direction.baseline]
    return _Average(
        name,
        len(reports),
        {column: _mean([values[column] for values in own]) for column in columns},
        {column: _mean([values[column] for values in others]) for column in columns}
        if len(others) == len(reports)
        else None,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _by_column(subset: Subset, field: str) -> dict[str, Any]:
    """One field of all metrics' results, by column."""
    found: dict[str, Any] = {}
    for result in subset.results.values():
        found |= getattr(result, field) or {}
    return found


def _scores(reports: Sequence[DirectionReport], settings: ScoreSettings) -> str:
    columns = reports[0].columns
    rows = [["", "lines", *columns]]
    for report in reports:
        rows += _subset_rows(report.whole, columns, "")
        for subset in (report.seen, report.unseen):
            if subset is not None:
                rows += _subset_rows(subset, columns, "  ")
        for subset in report.groups:
            rows += _subset_rows(subset, columns, "  group ")
    if settings.manifest is not None:
        for average in _averages(reports):
            name = f"mean of {average.name} ({average.num_directions})"
            rows.append([name, "", *(f"{average.values[column]:.2f}" for column in columns)])
            if average.baseline is not None:
                changes = [f"{average.values[column] - average.baseline[column]:+.2f}" for column in columns]
                rows.append(["  against the baseline", "", *changes])
    return format_table(rows)


def _subset_rows(subset: Subset, columns: Sequence[str], prefix: str) -> list[list[str]]:
    values, intervals = _by_column(subset, "parts"), _by_column(subset, "intervals")
    baseline, p_values = _by_column(subset, "baseline"), _by_column(subset, "p_values")
    cells = [f"{values[column]:.2f}" for column in columns]
    if intervals:
        bounds = [intervals[column] for column in columns]
        cells = [f"{cell} [{low:.2f}, {high:.2f}]" for cell, (low, high) in zip(cells, bounds, strict=True)]
    rows = [[prefix + printable(subset.name), f"{subset.num_examples:,}", *cells]]
    if baseline:
        inset = " " * (len(prefix) - len(prefix.lstrip()) + 2)
        changes = [
            f"{values[column] - baseline[column]:+.2f} (p = {p_values[column]:.3f})" for column in columns
        ]
        rows.append([f"{inset}against the baseline", "", *changes])
    return rows


def _outputs(reports: Sequence[DirectionReport]) -> str:
    heading = ["outputs", "lines", "empty", "wrong script", "wrong language", "copies", "right language"]
    rows = [heading]
    for report in reports:
        rows.append(_count_row(printable(report.direction.name), report.outputs))
        if report.baseline_outputs is not None:
            rows.append(_count_row("  of the baseline", report.baseline_outputs))
    return format_table(rows)


def _count_row(name: str, outputs: OutputCounts) -> list[str]:
    counts = (
        *(outputs.num_examples, outputs.num_empty, outputs.num_wrong_script),
        *(outputs.num_wrong_language, outputs.num_copies),
    )
    cells = ["" if count is None else f"{count:,}" for count in counts]
    return [name, *cells, f"{100 * outputs.right_language:.2f}%"]


def _signatures(reports: Sequence[DirectionReport], settings: ScoreSettings) -> list[str]:
    """A line for every signature of a metric, with the directions that have it where they differ."""
    lines = []
    for name in reports[0].signatures:
        lines += _differing(name, [(report.direction.name, report.signatures[name]) for report in reports])
    lines += _differing("language", [(report.direction.name, report.outputs.basis) for report in reports])
    drawn = f"resamples:{settings.resamples}|seed:{settings.seed}"
    if settings.confidence:
        lines.append(f"intervals  95%|bootstrap|{drawn}")
    if any(report.direction.baseline for report in reports):
        lines.append(f"p-values  paired {settings.paired_test}|{drawn}")
    return lines


def _differing(name: str, signatures: Sequence[tuple[str, str]]) -> list[str]:
    with_it: dict[str, list[str]] = {}
    for direction, signature in signatures:
        with_it.setdefault(signature, []).append(printable(direction))
    if len(with_it) == 1:
        return [f"{name}  {signature}" for signature in with_it]
    return [f"{name}  {signature}  ({', '.join(names)})" for signature, names in with_it.items()]
