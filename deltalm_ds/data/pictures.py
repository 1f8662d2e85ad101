"""A corpus as pictures: shares, lengths, fertility. The same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from deltalm_ds.data.fertility import Fertility
from deltalm_ds.data.summary import SourceSummary
from deltalm_ds.pictures import STYLE, save_picture

# Of Okabe and Ito's colours, which colour-blind readers tell apart; the shapes differ as well.
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_INK, _GREY, _FAINT = "#222222", "#767676", "#dddddd"
_STYLE = {
    **STYLE,
    "axes.edgecolor": _GREY,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "ytick.major.size": 0,
}
_WIDTH, _ROW, _HEAD, _FOOT, _CHARACTER = 7.2, 0.19, 0.68, 0.5, 0.075  # inches
_MANY_ROWS = 40  # more have an axis at both ends

_Mark: TypeAlias = dict[str, Any]
_BEFORE: _Mark = {
    "marker": "D",
    "markersize": 6,
    "color": _ORANGE,
    "markerfacecolor": "white",
    "linestyle": "",
}
_AFTER: _Mark = {"marker": "o", "markersize": 4.5, "color": _BLUE, "linestyle": ""}
_MOST: _Mark = {"color": _BLUE, "linewidth": 1.2, "solid_capstyle": "butt"}
_HALF: _Mark = {"color": _BLUE, "linewidth": 6, "alpha": 0.45, "solid_capstyle": "butt"}
_MEDIAN: _Mark = {"marker": "|", "markersize": 7, "markeredgewidth": 2, "color": _INK, "linestyle": ""}
_LONGEST: _Mark = {"marker": ">", "markersize": 4, "color": _ORANGE, "linestyle": ""}
_BESIDE: _Mark = {"va": "center", "size": 7, "bbox": {"facecolor": "white", "linewidth": 0, "pad": 0.5}}


class _Row(NamedTuple):
    """A line of a picture; its place is its number."""

    label: str
    is_heading: bool = False


def draw_pictures(
    folder: Path, summaries: Sequence[SourceSummary], fertility: Sequence[Fertility]
) -> list[Path]:
    """Draw the training sources into `folder`: languages.svg, lengths.svg and, if measured, fertility.svg.

    Returns: what was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style.context(["default", _STYLE]):
        figures = {"languages.svg": _draw_shares(summaries), "lengths.svg": _draw_lengths(summaries)}
        if fertility:
            figures["fertility.svg"] = _draw_fertility(fertility)
        for name, figure in figures.items():
            save_picture(figure, folder / name)
    return [folder / name for name in figures]


def _draw_shares(summaries: Sequence[SourceSummary]) -> Figure:
    """Each source's share of the tokens, and of the samples after the exponent."""
    rows, by_row = _by_size(summaries)
    marks = {"share of all tokens": _BEFORE, "share of the training samples, after the exponent": _AFTER}
    title = "What each source has, and what training sees of it"
    figure, (axes,) = _frame(title, rows, ("share",), "tokens", marks)
    shown = []
    for y, summary in by_row:
        shares = (100 * summary.token_share, _BEFORE), (100 * (summary.sample_share or 0.0), _AFTER)
        places = [share for share, _ in shares if share]
        axes.plot(places, [y] * len(places), color=_GREY, linewidth=1, zorder=1)
        for share, marker in shares:
            if share:
                axes.plot(share, y, **marker)
        shown += places
        _note(axes, y, _rounded(summary.num_tokens))
    _use_logarithm(
        axes, shown, lambda value, _: f"{np.format_float_positional(value, 6, trim='-', fractional=False)} %"
    )
    return figure


def _draw_lengths(summaries: Sequence[SourceSummary]) -> Figure:
    """How the lengths of each source's documents or pairs are distributed."""
    rows, by_row = _by_size(summaries)
    marks = {"median": _MEDIAN, "middle 50 %": _HALF, "middle 90 %": _MOST, "longest": _LONGEST}
    quantity = "tokens of a document or a pair"
    if any(summary.lengths is not None and summary.lengths.is_sampled for summary in summaries):
        quantity += ", of a sample of the largest sources"
    figure, (axes,) = _frame("How long documents and pairs are", rows, (quantity,), "number", marks)
    shown: list[float] = []
    for y, summary in by_row:
        _note(axes, y, _rounded(summary.num_documents))
        if summary.lengths is None:
            continue
        low, first, median, third, high = (max(value, 1.0) for value in summary.lengths.quantiles)
        longest = max(summary.lengths.longest, 1)
        axes.plot([low, high], [y, y], **_MOST)
        axes.plot([first, third], [y, y], **_HALF)
        axes.plot(median, y, **_MEDIAN)
        axes.plot(longest, y, **_LONGEST)
        shown += [low, longest]
    _use_logarithm(axes, shown, lambda value, _: f"{value:,.0f}")
    return figure


def _draw_fertility(fertility: Sequence[Fertility]) -> Figure:
    """How many tokens the tokenizer makes of a character and of a word, language by language."""
    ordered = sorted(fertility, key=lambda counts: -counts.tokens_per_character)
    rows = [_Row(counts.language) for counts in ordered]
    quantities = ("tokens per character", "tokens per word")
    figure, panels = _frame("How finely the tokenizer cuts each language", rows, quantities, "<unk>", {})
    for y, counts in enumerate(ordered):
        ratios = counts.tokens_per_character, counts.tokens_per_word
        for axes, ratio, color in zip(panels, ratios, (_BLUE, _ORANGE), strict=True):
            if ratio is None:
                axes.text(0, y, " written without spaces", color=_GREY, style="italic", **_BESIDE)
            else:
                axes.plot([0, ratio], [y, y], color=color, linewidth=1)
                axes.plot(ratio, y, "o", color=color, markersize=4.5)
                axes.annotate(f"{ratio:.2f}", (ratio, y), (5, 0), textcoords="offset points", **_BESIDE)
        _note(panels[-1], y, f"{counts.unknown_share:.2%}")
    for axes in panels:
        axes.set_xlim(0, max(axes.dataLim.x1, 0.1) * 1.16)
    return figure


def _by_size(summaries: Sequence[SourceSummary]) -> tuple[list[_Row], list[tuple[int, SourceSummary]]]:
    """Rows of the monolingual sources and of the pairs, each by tokens, and which source is where."""
    rows: list[_Row] = []
    by_row = []
    groups = (
        ("monolingual", [summary for summary in summaries if summary.kind == "monolingual"]),
        ("pairs", [summary for summary in summaries if summary.kind == "pairs"]),
    )
    for heading, group in groups:
        if group:
            rows.append(_Row(heading, is_heading=True))
        for summary in sorted(group, key=lambda summary: (-summary.num_tokens, summary.name)):
            by_row.append((len(rows), summary))
            rows.append(_Row(summary.name))
    return rows, by_row


def _frame(
    title: str, rows: Sequence[_Row], quantities: Sequence[str], notes: str, marks: Mapping[str, _Mark]
) -> tuple[Figure, list[Axes]]:
    """A figure with a line for each row and a panel for each quantity.

    Args:
        notes: what `_note` writes at the right of each row.
        marks: the legend.
    """
    many = len(rows) > _MANY_ROWS
    head = _HEAD + _ROW * (bool(marks) + many)
    height = head + _ROW * len(rows) + _FOOT
    figure = Figure(figsize=(_WIDTH, height))
    figure.text(0.12 / _WIDTH, 1 - 0.14 / height, title, size=11, weight="bold", va="top")
    left = 0.25 + _CHARACTER * max(len(row.label) for row in rows)
    place = {
        "left": left / _WIDTH,
        "right": 1 - 0.75 / _WIDTH,
        "bottom": _FOOT / height,
        "top": 1 - head / height,
        "wspace": 0.08,
    }
    panels = figure.subplots(1, len(quantities), sharey=True, squeeze=False, gridspec_kw=place)[0].tolist()
    panels[0].set_yticks(range(len(rows)), [row.label for row in rows])
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    for axes, quantity in zip(panels, quantities, strict=True):
        axes.set_xlabel(quantity)
        axes.grid(color=_FAINT, linewidth=0.5)
        axes.tick_params(axis="x", top=many, labeltop=many)
        for row, tick in zip(rows, axes.yaxis.get_major_ticks(), strict=True):
            if row.is_heading:
                tick.gridline.set_visible(False)
                tick.label1.set(fontstyle="italic", color=_GREY)
    _note(panels[-1], -1.2, notes, color=_GREY, style="italic")
    if marks:
        figure.legend(
            handles=[Line2D([], [], label=name, **mark) for name, mark in marks.items()],
            loc="upper left",
            bbox_to_anchor=(0.04 / _WIDTH, 1 - 0.34 / height),
            ncols=len(marks),
            frameon=False,
            columnspacing=1.6,
        )
    return figure, panels


def _note(axes: Axes, y: float, text: str, **style: Any) -> None:
    """Text in the column on the right of a panel."""
    place = axes.get_yaxis_transform()
    axes.annotate(
        text, (1, y), (0.62 * 72, 0), place, "offset points", ha="right", va="center", size=7, **style
    )


def _use_logarithm(axes: Axes, shown: Sequence[float], name: Callable[[float, int], str]) -> None:
    """A logarithmic axis that holds what is `shown`, and a decade at least."""
    largest = max(shown, default=1.0)
    smallest = min([*shown, largest / 10])
    axes.set_xscale("log")
    axes.set_xlim(smallest / 1.4, largest * 1.4)
    steps = (1.0, 2.0, 5.0) if largest / smallest < 200 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(name))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _rounded(number: int) -> str:
    """Three digits of a count: 987, 1.23 k, 45.6 M."""
    value, suffixes = float(number), iter(("", " k", " M", " G", " T"))
    while value >= 999.5:
        value /= 1000
        next(suffixes)
    return f"{value:.3g}{next(suffixes)}"
