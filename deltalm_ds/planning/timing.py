"""How long a step takes: computing at a share of the peak, links at a share of theirs, and what overlaps.

What a sheet cannot say is assumed, and named in `Assumptions`. Computing is slowed by nothing here that runs
beside it, and batches are there in time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from deltalm_ds.planning.communication import Collective, StepCommunication
from deltalm_ds.planning.hardware import Speeds
from deltalm_ds.planning.samples import SampleKind, flops_of
from deltalm_ds.planning.shapes import ModelShape
from deltalm_ds.planning.zero import GRADIENT_BYTES, ZeroSettings

# Bytes that the update of a number moves in device memory: its gradient's norm, in fp64 by way of a copy
# (20), clipping (8), Adam (28), and the new weight (6).
UPDATE_BYTES = 62


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Shares of what the hardware could do. Assumed, not measured."""

    mfu: float = 0.35
    """Of the peak, while forward and backward passes run; recomputation is not counted as work."""
    memory_efficiency: float = 0.8
    """Of the memory's bandwidth, in the optimizer's step."""
    link_efficiency: float = 0.7
    """Of a link's bandwidth, in collectives."""
    hop_seconds: float = 1e-6
    """From one device to the next within a node, whatever the size."""
    network_hop_seconds: float = 5e-6
    """From one node to the next."""


@dataclass(frozen=True)
class Cluster:
    """Devices of one kind, one process each."""

    num_nodes: int
    devices_per_node: int
    speeds: Speeds

    @property
    def num_ranks(self) -> int:
        """Processes in all."""
        return self.num_nodes * self.devices_per_node

    @property
    def bus_bytes_per_second(self) -> float:
        """At which a ring over all devices can send.

        Between nodes the rings of a node's devices go through all of its adapters, so a node's adapters
        together are what one of its links is compared with.
        """
        link = self.speeds.link_gb_per_second * 1e9
        if self.num_nodes == 1:
            return link
        return min(link, self.devices_per_node * self.speeds.network_gbit_per_second * 1e9 / 8)


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step, by what is waited for; they add up."""

    passes: float
    """Forward and backward passes of all micro-batches."""
    recomputation: float
    """Forward passes once more, under activation checkpointing."""
    copies: float
    """Of gradients and gathered weights, from buffer to buffer."""
    communication: float
    """What of it nothing hides."""
    update: float
    """The optimizer."""
    hidden_communication: float
    """Beside the passes; not part of the sum."""

    @property
    def total(self) -> float:
        """Of the whole step."""
        return self.passes + self.recomputation + self.copies + self.communication + self.update


def step_time(
    shape: ModelShape,
    zero: ZeroSettings,
    cluster: Cluster,
    communication: StepCommunication,
    kinds: tuple[SampleKind, ...],
    batch_size: int,
    every: int,
    assumptions: Assumptions,
) -> StepTime:
    """Of an optimizer step of `batch_size` samples over the whole cluster."""
    rate = cluster.speeds.peak_tflops * 1e12 * assumptions.mfu * cluster.num_ranks
    passes = batch_size * flops_of(shape.config, kinds) / rate
    recomputation = batch_size * _recomputed_flops(shape, kinds, every) / rate
    num_micro_steps = communication.num_micro_steps
    forward = passes / 3 / num_micro_steps
    backward = (passes * 2 / 3 + recomputation) / num_micro_steps

    def seconds(calls: Iterable[Collective]) -> list[float]:
        return [_seconds(call, cluster, assumptions) for call in calls]

    exposed = sum(seconds(communication.of_step))
    total = exposed
    for when, hiding in (("forward", forward), ("backward", backward), ("boundary", 0.0)):
        times = seconds(call for call in communication.of_micro_step if call.when == when)
        if not times:
            continue
        # The first gather, or the last reduction, has nothing beside it.
        least = times[0] if when == "forward" else times[-1]
        alone = max(least, sum(times) - hiding) if zero.overlaps else sum(times)
        exposed += num_micro_steps * alone
        total += num_micro_steps * sum(times)
    memory_rate = cluster.speeds.memory_gb_per_second * 1e9 * assumptions.memory_efficiency
    parts = cluster.num_ranks if zero.stage else 1
    update = shape.num_parameters / parts * UPDATE_BYTES / memory_rate
    copies = copied_bytes(shape, zero, communication) / memory_rate
    return StepTime(passes, recomputation, copies, exposed, update, total - exposed)


def copied_bytes(shape: ModelShape, zero: ZeroSettings, communication: StepCommunication) -> float:
    """Read and written in a step by what DeepSpeed does to whole gradients and gathered weights.

    On every rank the same, however many there are; what is done to a rank's own part is left out.
    """
    weight = zero.weight_bytes
    widened = weight + GRADIENT_BYTES if zero.dtype != "fp32" else 0
    # In fp32: laid out flat, scaled, copied back.
    reduced_flat = 3 * 2 * GRADIENT_BYTES
    if zero.path == "stage 0":
        of_micro_step, of_step = 0, reduced_flat
    elif zero.path == "stage 1 in bf16":
        # Added to the fp32 sums, set to zero.
        of_micro_step, of_step = weight + 2 * GRADIENT_BYTES + weight, reduced_flat
    elif zero.path == "stages 1 and 2":
        # Into the bucket, divided, laid out flat, widened to fp32.
        moved = 3 * 2 * weight + widened
        of_micro_step, of_step = (moved, 0) if zero.stage == 2 else (0, moved)
    else:
        # Into the fp32 bucket, each rank's slices together, divided.
        of_micro_step, of_step = weight + GRADIENT_BYTES + 2 * 2 * GRADIENT_BYTES, 0
    numbers = shape.num_parameters
    gathered = sum(call.num_bytes for call in communication.of_micro_step if call.operation == "all_gather")
    unpacked = 2 * gathered * communication.num_micro_steps
    return numbers * (of_micro_step * communication.num_micro_steps + of_step) + unpacked


def _recomputed_flops(shape: ModelShape, kinds: tuple[SampleKind, ...], every: int) -> float:
    """Of the forward pass of every n-th layer, for a sample."""
    if not every:
        return 0.0
    config = shape.config
    layers = dataclasses.replace(
        config,
        num_encoder_layers=-(-config.num_encoder_layers // every),
        num_decoder_blocks=-(-config.num_decoder_blocks // every),
    )
    return flops_of(layers, kinds, with_head=False) / 3


def _seconds(call: Collective, cluster: Cluster, assumptions: Assumptions) -> float:
    """Of one collective: sending, and the hops of its ring, or, to all-reduce little, of a tree."""
    if cluster.num_ranks == 1:
        return 0.0
    sending = call.sent_bytes(cluster.num_ranks) / (
        cluster.bus_bytes_per_second * assumptions.link_efficiency
    )
    local = (cluster.devices_per_node - 1) * assumptions.hop_seconds
    ring = cluster.num_nodes * (local + assumptions.network_hop_seconds * (cluster.num_nodes > 1))
    if call.operation in ("all_gather", "reduce_scatter"):
        return sending + ring
    tree = 2 * (local + math.ceil(math.log2(cluster.num_nodes)) * assumptions.network_hop_seconds)
    return sending + min(2 * ring, tree)
