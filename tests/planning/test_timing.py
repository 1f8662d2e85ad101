"""Times of a step, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.communication import communication_of
from deltalm_ds.planning.configuration import zero_settings
from deltalm_ds.planning.hardware import DEVICES, Speeds
from deltalm_ds.planning.samples import SampleKind, flops_of
from deltalm_ds.planning.shapes import shape_of
from deltalm_ds.planning.timing import Assumptions, Cluster, step_time
from deltalm_ds.training.flops import NAMED_PEAKS

SHAPE = shape_of(DeltaLMConfig.preset("base"))
NUMBERS = 362_981_376
KINDS = (SampleKind(1.0, 512, 114),)
SPEEDS = Speeds(1000, 4000, 400, 400)
EXACT = Assumptions(mfu=0.5, memory_efficiency=1, link_efficiency=1, hop_seconds=0, network_hop_seconds=0)


def planned(stage, nodes=1, devices=8, every=0, speeds=SPEEDS, micro_steps=1, assumptions=EXACT, **changes):
    zero = dataclasses.replace(zero_settings(stage, "bf16"), **changes)
    communication = communication_of(SHAPE, zero, nodes * devices, micro_steps, every)
    cluster = Cluster(nodes, devices, speeds)
    return step_time(SHAPE, zero, cluster, communication, KINDS, 2048, every, assumptions)


def test_passes_take_their_flops_at_a_share_of_the_peak():
    time = planned(0, devices=1)
    assert time.passes == pytest.approx(2048 * flops_of(SHAPE.config, KINDS) / (1000e12 * 0.5))
    assert (time.communication, time.hidden_communication, time.recomputation) == (0, 0, 0)
    assert time.total == pytest.approx(time.passes + time.copies + time.update)


def test_recomputation_takes_the_layers_forward_pass():
    forward = planned(0).passes / 3
    head = 2 * 114 * 768 * 250_104 * 2048 / (8 * 1000e12 * 0.5)
    assert planned(0, every=1).recomputation == pytest.approx(forward - head)
    assert planned(0, every=2).recomputation == pytest.approx((forward - head) / 2)


def test_the_update_is_shared_from_stage_1_on():
    assert planned(1).update == pytest.approx(planned(0).update / 8)
    assert planned(0).update == pytest.approx(NUMBERS * 62 / 4000e9)


def test_copies_are_the_same_on_any_number_of_devices():
    assert planned(0).copies == pytest.approx(NUMBERS * 24 / 4000e9)
    assert planned(0, nodes=4).copies == pytest.approx(planned(0, devices=1).copies)
    # Stage 2 in bf16, at each micro-batch: bucket, division, flat copy, fp32.
    assert planned(2, micro_steps=3).copies == pytest.approx(3 * NUMBERS * (12 + 6) / 4000e9)
    small = sum(parameter.size for parameter in SHAPE.parameters if parameter.size <= 100_000)
    assert planned(3).copies == pytest.approx((NUMBERS * 22 + (NUMBERS - small) * 4) / 4000e9, rel=1e-3)


def test_stage_0_waits_for_its_gradients():
    assert planned(0).communication == pytest.approx(NUMBERS * 4 * 2 * 7 / 8 / 400e9)


def test_stage_2_hides_reduction_behind_the_backward_pass_and_then_gathers():
    time = planned(2)
    gathering = NUMBERS * 2 * 7 / 8 / 400e9
    last_bucket = time.communication - gathering
    assert 0 < last_bucket < NUMBERS * 4 * 2 * 7 / 8 / 400e9 / 2
    assert time.hidden_communication > 0
    # On links so slow that nothing can hide it, all but the backward pass is waited for.
    slow = planned(2, speeds=dataclasses.replace(SPEEDS, link_gb_per_second=0.4))
    backward = slow.passes * 2 / 3
    assert slow.communication == pytest.approx(
        1000 * NUMBERS * (4 * 2 + 2) * 7 / 8 / 400e9 - backward, rel=0.01
    )
    unhidden = planned(2, overlaps=False)
    assert unhidden.communication == pytest.approx(NUMBERS * (4 * 2 + 2) * 7 / 8 / 400e9, rel=0.01)


def test_between_nodes_all_adapters_of_a_node_work_together():
    """Eight adapters of 400 Gbit/s send as one link of 400 GB/s; with slower ones they decide."""
    assert Cluster(2, 8, SPEEDS).bus_bytes_per_second == pytest.approx(400e9)
    slower = dataclasses.replace(SPEEDS, network_gbit_per_second=100)
    assert Cluster(2, 8, slower).bus_bytes_per_second == pytest.approx(100e9)
    assert Cluster(1, 8, slower).bus_bytes_per_second == pytest.approx(400e9)


def test_hops_make_many_small_calls_slow():
    hops = dataclasses.replace(EXACT, hop_seconds=1e-6, network_hop_seconds=5e-6)
    without, with_ = (planned(3, nodes=16, assumptions=assumptions) for assumptions in (EXACT, hops))
    small = sum(parameter.size <= 100_000 for parameter in SHAPE.parameters)
    ring = 16 * (7 * 1e-6 + 5e-6)
    assert with_.communication - without.communication > small * ring
    tree = planned(0, nodes=16, assumptions=hops).communication - planned(0, nodes=16).communication
    assert tree == pytest.approx(2 * (7e-6 + 4 * 5e-6))


def test_a_step_of_many_micro_batches_reduces_at_each_in_stage_2():
    one, four = planned(2), planned(2, micro_steps=4)
    assert (
        four.communication + four.hidden_communication
        > 3 * (one.communication + one.hidden_communication) / 2
    )
    assert four.passes == pytest.approx(one.passes)


def test_peaks_are_those_of_runs_mfu():
    named = set(NAMED_PEAKS.values())
    assert all(device.speeds.peak_tflops in named for device in DEVICES.values() if device.speeds)
