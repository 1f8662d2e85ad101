"""A plan as a picture: memory by part for every option, and days and device hours over devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from deltalm_ds.pictures import STYLE, save_picture
from deltalm_ds.planning.choosing import CHECKPOINTING, Option
from deltalm_ds.planning.ledger import PARTS, Part
from deltalm_ds.planning.settings import PlanSettings

# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLORS: dict[Part, str] = {
    "weights": "#0072B2",
    "gradients": "#56B4E9",
    "optimizer": "#009E73",
    "activations": "#E69F00",
    "logits": "#F0E442",
    "buckets": "#CC79A7",
    "process": "#999999",
}
_DAYS, _HOURS, _LIMIT = "#0072B2", "#D55E00", "#222222"
_NOTE: dict[str, Any] = {"textcoords": "offset points", "size": 7, "color": _LIMIT}


def draw_plan(
    path: Path, settings: PlanSettings, options: Sequence[Option], swept: Sequence[tuple[int, Option | None]]
) -> None:
    """Draw the picture into `path`, .svg or .png. The same plan gives the same bytes."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(9.4, 4.2))
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (5, 4), "wspace": 0.2})
        _draw_memory(left, settings, options)
        _draw_sweep(right, settings, swept)
        millions = f"{settings.shape.num_parameters / 1e6:,.0f} million"
        title = f"{settings.model}, {millions} parameters: planned, not measured"
        figure.suptitle(title, x=0.02, ha="left", weight="bold")
        save_picture(figure, path, dpi=150, bbox_inches="tight")


def _draw_memory(axes: Axes, settings: PlanSettings, options: Sequence[Option]) -> None:
    places = range(len(options))
    bottoms = [0.0] * len(options)
    for part in PARTS:
        heights = [option.memory.parts[part] / 1e9 for option in options]
        if any(heights):
            axes.bar(places, heights, 0.8, bottoms, color=_COLORS[part], label=part)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    for place, option in zip(places, options, strict=True):
        words = f"{option.micro_batch}" if option.fits else "✕"
        axes.annotate(words, (place, bottoms[place]), (0, 2), ha="center", **_NOTE)
    limit = settings.device.memory_bytes * (1 - settings.assumed.reserve) / 1e9
    axes.axhline(limit, color=_LIMIT, linewidth=0.8, linestyle="--")
    axes.set_ylim(0, max(limit, *bottoms) * 1.3)
    place_of_limit = axes.get_yaxis_transform()
    axes.annotate(f"{limit:.0f} GB to use", (1, limit), (0, 3), place_of_limit, ha="right", **_NOTE)
    labels = {0: "none", 1: "all", 2: "half"}
    axes.set_xticks(places, [labels[option.every] for option in options])
    for number in range(len(options) // len(CHECKPOINTING)):
        middle = number * len(CHECKPOINTING) + 1
        axes.annotate(
            f"ZeRO-{number}", (middle, 0), (0, -26), textcoords="offset points", ha="center", weight="bold"
        )
    axes.set_ylabel("GB of each device, at its most")
    axes.set_title(
        f"{settings.num_ranks:,} {settings.gpu}, layers recomputed; above: samples at once, ✕ no room",
        size=8,
        loc="left",
    )
    axes.legend(frameon=False, ncols=2, fontsize=7, loc="upper right")
    axes.spines["right"].set_visible(False)


def _draw_sweep(axes: Axes, settings: PlanSettings, swept: Sequence[tuple[int, Option | None]]) -> None:
    found = [(number, option) for number, option in swept if option is not None and option.time is not None]
    numbers = [number for number, _ in found]
    days = [option.days(settings.steps) for _, option in found]
    hours = [option.device_hours(settings.steps) for _, option in found]
    axes.plot(numbers, days, "o-", color=_DAYS, markersize=4)
    for number, option in found:
        axes.annotate(f"{option.stage}", (number, option.days(settings.steps)), (0, 5), ha="center", **_NOTE)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([number for number, _ in swept], [f"{number:,}" for number, _ in swept], rotation=60)
    if swept:
        axes.set_xlim(swept[0][0] / 1.4, swept[-1][0] * 1.4)
    axes.set_ylabel(f"days of {settings.steps:,} steps", color=_DAYS)
    axes.grid(alpha=0.25)
    other = axes.twinx()
    other.plot(numbers, hours, "D--", color=_HOURS, markersize=4, markerfacecolor="white")
    other.set_yscale("log")
    other.set_ylabel("device hours", color=_HOURS)
    for shown in (axes, other):
        shown.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        shown.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        shown.yaxis.set_minor_formatter(NullFormatter())
    if hours:
        other.set_ylim(min(hours) / 2, max(hours) * 4)
    axes.set_xlabel("devices")
    axes.set_title("the best way for each number of devices, with its ZeRO stage", size=8, loc="left")
