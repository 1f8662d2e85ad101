"""All that is said of a direction: scores of all its examples and by group, tests, and counts of outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltalm_ds.errors import UserError
from deltalm_ds.scoring.base import Metric
from deltalm_ds.scoring.directions import Direction
from deltalm_ds.scoring.identification import LanguageIdentifier
from deltalm_ds.scoring.lines import read_aligned, read_lines, references_by_example
from deltalm_ds.scoring.metrics import build_metric
from deltalm_ds.scoring.outputs import OutputCounts, count_outputs
from deltalm_ds.scoring.resampling import bootstrap, interval, p_values
from deltalm_ds.scoring.settings import ScoreSettings


@dataclass(frozen=True)
class Result:
    """A metric of some examples; the keys of its dictionaries are the metric's columns."""

    parts: dict[str, float]
    """All numbers of the metric."""
    intervals: dict[str, tuple[float, float]]
    """Of 95 %, where they were asked for."""
    baseline: dict[str, float] | None
    """All numbers of the other system, if there is one."""
    p_values: dict[str, float]
    """Of the differences from it."""


@dataclass(frozen=True)
class Subset:
    """Some of a direction's examples."""

    name: str
    num_examples: int
    results: dict[str, Result]
    """By metric."""


@dataclass(frozen=True)
class DirectionReport:
    """What is said of a direction."""

    direction: Direction
    columns: tuple[str, ...]
    """Those of all metrics, as tables show them."""
    signatures: dict[str, str]
    """By metric."""
    whole: Subset
    groups: list[Subset]
    """By name; none without groups."""
    seen: Subset | None
    """Examples of groups that training has seen; None if it is not known which, or there are none."""
    unseen: Subset | None
    outputs: OutputCounts
    baseline_outputs: OutputCounts | None


@dataclass(frozen=True)
class _Measured:
    """A metric's counts of a direction's examples."""

    metric: Metric
    rows: np.ndarray
    baseline: np.ndarray | None


def evaluate(
    direction: Direction, settings: ScoreSettings, identifier: LanguageIdentifier | None
) -> DirectionReport:
    """Read a direction's files and score them.

    UserError where files differ in length, an example has no reference, or a metric cannot be computed.
    """
    metrics = [_build(name, direction.language, settings) for name in settings.metrics]
    single = (direction.sources, direction.baseline, direction.groups)
    present = [path for path in single if path is not None]
    files = iter(read_aligned([direction.hypotheses, *direction.references, *present]))
    hypotheses = next(files)
    references = references_by_example(direction.references, [next(files) for _ in direction.references])
    sources, baseline, groups = (None if path is None else next(files) for path in single)
    if not hypotheses:
        raise UserError(f"{direction.hypotheses} is empty: there is nothing to score")
    measured, signatures = [], {}
    for metric in metrics:
        statistics = metric.statistics(hypotheses, references)
        other = None if baseline is None else metric.statistics(baseline, references).rows
        measured.append(_Measured(metric, statistics.rows, other))
        signatures[metric.name] = statistics.signature
    everywhere = np.ones(len(hypotheses), bool)
    of_group = np.array([] if groups is None else _group_names(groups, direction.name), dtype=str)
    is_seen = None if direction.seen is None else _is_seen(of_group, direction.seen)
    return DirectionReport(
        direction=direction,
        columns=tuple(column for metric in metrics for column in metric.columns),
        signatures=signatures,
        whole=_subset(direction.name, measured, everywhere, settings),
        groups=[_subset(name, measured, of_group == name, settings) for name in np.unique(of_group).tolist()],
        seen=None if is_seen is None else _unless_empty("seen", measured, is_seen, settings),
        unseen=None if is_seen is None else _unless_empty("unseen", measured, ~is_seen, settings),
        outputs=count_outputs(hypotheses, direction.language, sources, identifier),
        baseline_outputs=(
            None if baseline is None else count_outputs(baseline, direction.language, sources, identifier)
        ),
    )


def read_identifier(samples: Iterable[str]) -> LanguageIdentifier | None:
    """Learn languages from LANGUAGE=FILE; None for no samples; UserError for what is no such thing."""
    texts: dict[str, str] = {}
    for sample in samples:
        language, equals, path = sample.partition("=")
        if not equals or not path or language in texts:
            raise UserError(f"--language-samples {sample}: give each language once, as fr=FILE")
        texts[language] = "\n".join(read_lines(Path(path)))
    return LanguageIdentifier(texts) if texts else None


def _build(name: str, language: str, settings: ScoreSettings) -> Metric:
    return build_metric(
        name,
        language,
        bleu_tokenizer=settings.bleu_tokenizer,
        rouge_tokenizer=settings.rouge_tokenizer,
        stemmer=settings.stemmer,
        multi_reference=settings.multi_reference,
    )


def _group_names(lines: Sequence[str], direction: str) -> list[str]:
    names = [line.strip() for line in lines]
    if "" in names:
        where = f"line {names.index('') + 1:,} of the groups of {direction}"
        raise UserError(f"{where} is blank: name a group for every example")
    return names


def _is_seen(groups: np.ndarray, path: Path) -> np.ndarray:
    names = {line.strip() for line in read_lines(path) if line.strip()}
    seen = np.isin(groups, sorted(names))
    if not seen.any():
        raise UserError(f"{path} names none of the groups: write theirs, one a line")
    return seen


def _unless_empty(
    name: str, measured: Sequence[_Measured], chosen: np.ndarray, settings: ScoreSettings
) -> Subset | None:
    return _subset(name, measured, chosen, settings) if chosen.any() else None


def _subset(name: str, measured: Sequence[_Measured], chosen: np.ndarray, settings: ScoreSettings) -> Subset:
    """The scores of the examples where `chosen` [examples] is true."""
    results = {entry.metric.name: _result(entry, chosen, settings) for entry in measured}
    return Subset(name, int(chosen.sum()), results)


def _result(measured: _Measured, chosen: np.ndarray, settings: ScoreSettings) -> Result:
    metric, rows = measured.metric, measured.rows[chosen]
    intervals, baseline, tested = {}, None, {}
    if settings.confidence:
        bounds = interval(bootstrap(metric, rows, settings.resamples, settings.seed)).tolist()
        intervals = {name: (low, high) for name, (low, high) in zip(metric.columns, bounds, strict=True)}
    if measured.baseline is not None:
        others = measured.baseline[chosen]
        baseline = metric.parts(others.sum(axis=0))
        p = p_values(metric, rows, others, settings.paired_test, settings.resamples, settings.seed)
        tested = dict(zip(metric.columns, p.tolist(), strict=True))
    return Result(metric.parts(rows.sum(axis=0)), intervals, baseline, tested)
