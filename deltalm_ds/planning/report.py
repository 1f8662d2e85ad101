"""A plan in words and tables."""

from __future__ import annotations

from collections.abc import Sequence

from deltalm_ds.planning.choosing import MOST_SAMPLES, Option
from deltalm_ds.planning.ledger import PARTS
from deltalm_ds.planning.samples import flops_of, tokens_of
from deltalm_ds.planning.settings import PlanSettings
from deltalm_ds.tables import format_table

_GB = 1e9


def describe_run(settings: PlanSettings) -> str:
    """What is planned, and what is assumed."""
    shape, device = settings.shape, settings.device
    kinds = ", ".join(
        f"{kind.share:.0%} of {kind.source_length} + {kind.target_length} tokens" for kind in settings.kinds
    )
    tokens = settings.batch_size * tokens_of(settings.kinds)
    flops = settings.batch_size * flops_of(shape.config, settings.kinds)
    lines = [
        f"model    {settings.model}: {shape.num_parameters:,} parameters, {settings.dtype}",
        f"run      {settings.steps:,} steps of {settings.batch_size:,} samples: {kinds}",
        f"step     {tokens:,.0f} tokens, {flops / 1e12:,.0f} TFLOP",
        f"devices  {settings.num_ranks:,} {settings.gpu}: {settings.nodes} x {settings.gpus_per_node}",
    ]
    if device.speeds is not None:
        assumed, speeds = settings.assumed, device.speeds
        lines += [
            f"         {device.memory_bytes / _GB:g} GB, {speeds.peak_tflops:g} TFLOP/s, "
            f"{speeds.memory_gb_per_second:g} GB/s memory, {speeds.link_gb_per_second:g} GB/s in a node, "
            f"{speeds.network_gbit_per_second:g} Gbit/s between nodes (data sheets)",
            f"assumed, not measured: MFU {assumed.mfu:.0%} while computing, {assumed.memory_efficiency:.0%} "
            f"of memory bandwidth, {assumed.link_efficiency:.0%} of links, {assumed.reserve:.0%} of memory "
            "kept free",
        ]
    return "\n".join(lines)


def describe_options(options: Sequence[Option]) -> str:
    """A table of every stage and checkpointing choice, with the largest micro-batch that fits."""
    parts = [part for part in PARTS if any(option.memory.parts[part] for option in options)]
    rows = [
        (
            *("ZeRO, checkpointing", *parts, "all, GB", "at most in"),
            *("micro-batches", "largest", "sent, GB", "s a step"),
        )
    ]
    for option in options:
        rows.append(
            (
                f"{option.stage}, {_checkpointing(option.every)}",
                *(f"{option.memory.parts[part] / _GB:.1f}" for part in parts),
                f"{option.memory.total / _GB:.1f}",
                option.memory.phase,
                f"{option.num_micro_steps} x {option.micro_batch}",
                _largest(option),
                f"{option.communication.sent_bytes(option.num_ranks) / _GB:.2f}",
                f"{option.time.total:.3f}" if option.time else "",
            )
        )
    return format_table(rows)


def describe_option(settings: PlanSettings, option: Option) -> str:
    """One option in full."""
    sent = option.communication.sent_bytes(option.num_ranks)
    lines = [
        f"ZeRO stage {option.stage}, checkpointing {_checkpointing(option.every)}, micro-batches "
        f"{option.num_micro_steps} x {option.micro_batch}: {option.memory.total / _GB:.1f} GB a device at "
        f"most, in the {option.memory.phase}",
        f"each device sends {sent / _GB:.2f} GB a step, in {_num_calls(option):,} collectives",
    ]
    if option.time is not None:
        time, steps = option.time, settings.steps
        tokens = settings.batch_size * tokens_of(settings.kinds)
        lines += [
            f"a step takes {time.total:.3f} s: passes {time.passes:.3f}, recomputation "
            f"{time.recomputation:.3f}, copies {time.copies:.3f}, update {time.update:.3f}, communication "
            f"{time.communication:.3f} (and {time.hidden_communication:.3f} beside the passes)",
            f"{tokens / time.total:,.0f} tokens/s; {steps:,} steps take {option.days(steps):.2f} days, "
            f"{option.device_hours(steps):,.0f} device hours",
        ]
    if option.every:
        lines.append(f"run it with --checkpoint-every-n-layers {option.every}")
    return "\n".join(lines)


def sweep_head() -> str:
    """The heading of the rows below; widths are fixed, for each row takes a moment."""
    return (
        f"{'devices':>7}  {'ZeRO, checkpointing':<19}  {'micro-batches':>13}  {'GB':>5}  {'s a step':>8}  "
        f"{'waiting':>7}  {'tokens/s':>11}  {'days':>8}  {'device hours':>12}"
    )


def sweep_row(settings: PlanSettings, num_devices: int, option: Option | None) -> str:
    """The best option for so many devices; "waiting" is the share of a step for communication alone."""
    if option is None or option.time is None:
        return f"{num_devices:>7,}  nothing fits"
    tokens = settings.batch_size * tokens_of(settings.kinds)
    batches = f"{option.num_micro_steps} x {option.micro_batch}"
    choice = f"{option.stage}, {_checkpointing(option.every)}"
    return (
        f"{num_devices:>7,}  {choice:<19}  {batches:>13}  {option.memory.total / _GB:>5.1f}  "
        f"{option.time.total:>8.3f}  {option.time.communication / option.time.total:>7.1%}  "
        f"{tokens / option.time.total:>11,.0f}  {option.days(settings.steps):>8.2f}  "
        f"{option.device_hours(settings.steps):>12,.0f}"
    )


def _checkpointing(every: int) -> str:
    return {0: "none", 1: "every layer"}.get(every, "every 2nd layer")


def _largest(option: Option) -> str:
    if not option.fits:
        return "none fits"
    most = option.largest_micro_batch >= MOST_SAMPLES
    return f"{'over ' if most else ''}{option.largest_micro_batch:,}"


def _num_calls(option: Option) -> int:
    return sum(1 for _ in option.communication.calls())
