"""Every ZeRO stage and checkpointing choice for a number of devices, and the best of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deltalm_ds.planning.activations import Activations, MicroBatch
from deltalm_ds.planning.communication import StepCommunication, communication_of
from deltalm_ds.planning.configuration import STAGES, zero_settings
from deltalm_ds.planning.memory import Memory, peak_memory
from deltalm_ds.planning.samples import SampleKind
from deltalm_ds.planning.settings import PlanSettings
from deltalm_ds.planning.timing import Cluster, StepTime, step_time

CHECKPOINTING = (0, 2, 1)
"""--checkpoint-every-n-layers: none, every other layer, every layer."""
SWEEP = tuple(2**power for power in range(11))
"""Devices of the last table: 1 to 1,024."""
MOST_SAMPLES = 2048
"""Of a micro-batch: no more are looked at."""
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Option:
    """One way to run."""

    stage: int
    every: int
    num_ranks: int
    largest_micro_batch: int
    """The most samples that fit, in a step of several micro-batches; at most MOST_SAMPLES."""
    micro_batch: int
    """Samples of each of a step's micro-batches, made equal."""
    num_micro_steps: int
    memory: Memory
    """With `micro_batch`."""
    communication: StepCommunication
    time: StepTime | None
    """None where nothing fits, or speeds are unknown."""

    fits: bool
    """Whether the device has memory for it."""

    def days(self, num_steps: int) -> float:
        """Of the whole run."""
        assert self.time is not None
        return self.time.total * num_steps / _SECONDS_A_DAY

    def device_hours(self, num_steps: int) -> float:
        """Of all devices together."""
        return self.days(num_steps) * 24 * self.num_ranks


def options_of(settings: PlanSettings) -> list[Option]:
    """All stages, each with every choice of checkpointing."""
    return [_option(settings, stage, every) for stage in STAGES for every in CHECKPOINTING]


def best_of(options: list[Option]) -> Option | None:
    """The fastest that fits; of equals the one with the lower stage, then with less to compute again.

    Without times the one with the fewest micro-batches stands for the fastest.
    """
    fitting = [option for option in options if option.fits]
    if not fitting:
        return None
    recomputed = {every: number for number, every in enumerate(CHECKPOINTING)}

    def rank(option: Option) -> tuple[float, int, int]:
        seconds = round(option.time.total, 6) if option.time else float(option.num_micro_steps)
        return seconds, option.stage, recomputed[option.every]

    return min(fitting, key=rank)


def on_devices(settings: PlanSettings, num_devices: int) -> PlanSettings:
    """The same run on so many devices, in nodes as full as they go."""
    per_node = min(settings.gpus_per_node, num_devices)
    return dataclasses.replace(
        settings,
        nodes=-(-num_devices // per_node),
        gpus_per_node=per_node,
        batch_size=max(settings.batch_size, num_devices),
    )


def sweep(settings: PlanSettings) -> Iterator[tuple[int, Option | None]]:
    """The best option for each number of devices."""
    for num_devices in SWEEP:
        if num_devices <= settings.batch_size:
            yield num_devices, best_of(options_of(on_devices(settings, num_devices)))


def largest_kind(settings: PlanSettings) -> SampleKind:
    """The samples that take most: a micro-batch may hold no others."""

    def kept(kind: SampleKind) -> float:
        batch = MicroBatch(1, kind.source_length, kind.target_length)
        activations = Activations(settings.shape.config, batch, 2, settings.way)
        return sum(map(activations.kept, settings.shape.units))

    return max(settings.kinds, key=kept)


def _option(settings: PlanSettings, stage: int, every: int) -> Option:
    shape, zero, num_ranks = settings.shape, zero_settings(stage, settings.dtype), settings.num_ranks
    kind = largest_kind(settings)
    share = -(-settings.batch_size // num_ranks)

    def memory(samples: int, num_micro_steps: int) -> Memory:
        batch = MicroBatch(samples, kind.source_length, kind.target_length)
        return peak_memory(
            shape, zero, num_ranks, batch, num_micro_steps=num_micro_steps, every=every, way=settings.way
        )

    room = settings.device.memory_bytes * (1 - settings.assumed.reserve)
    largest = _largest(lambda samples: memory(samples, 2).total <= room)
    # A single micro-batch finds no gradients of another.
    whole = memory(share, 1)
    num_micro_steps = 1 if whole.total <= room else -(-share // max(1, min(largest, share)))
    micro_batch = -(-share // num_micro_steps)
    chosen = whole if num_micro_steps == 1 else memory(micro_batch, num_micro_steps)
    fits = chosen.total <= room
    communication = communication_of(shape, zero, num_ranks, num_micro_steps, every)
    time = None
    if fits and settings.device.speeds is not None:
        cluster = Cluster(settings.nodes, settings.gpus_per_node, settings.device.speeds)
        time = step_time(
            shape,
            zero,
            cluster,
            communication,
            settings.kinds,
            settings.batch_size,
            every,
            settings.assumptions,
        )
    return Option(
        stage=stage,
        every=every,
        num_ranks=num_ranks,
        largest_micro_batch=largest,
        micro_batch=micro_batch,
        num_micro_steps=num_micro_steps,
        fits=fits,
        memory=chosen,
        communication=communication,
        time=time,
    )


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest number up to MOST_SAMPLES that fits, as all below it do; 0 for none."""
    low, high = 0, MOST_SAMPLES + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
