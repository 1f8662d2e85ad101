"""Sizes of collectives, by hand; counted runs are compared in test_counted_communication.py."""

from __future__ import annotations

import dataclasses

import pytest

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.communication import Collective, communication_of, filled_buckets, flat_sizes
from deltalm_ds.planning.configuration import zero_settings
from deltalm_ds.planning.shapes import shape_of

SHAPE = shape_of(DeltaLMConfig.preset("base"))
NUMBERS = 362_981_376


@pytest.mark.parametrize(
    ("operation", "share"),
    [("all_reduce", 1.75), ("reduce_scatter", 0.875), ("all_gather", 0.875), ("reduce", 1)],
)
def test_bytes_sent_by_rings(operation, share):
    call = Collective(operation, "update", 800)
    assert call.sent_bytes(8) == pytest.approx(share * 800)
    assert call.sent_bytes(1) == 0


@pytest.mark.parametrize(
    ("stage", "sent"),
    [
        (0, 2 * 4),  # gradients all-reduced in fp32
        (1, 2 * 4 + 2),  # and bf16 weights gathered
        (2, 3 * 2 * 4 + 2),  # gradients at every micro-batch
    ],
)
def test_bytes_of_a_step_in_bf16_with_three_micro_batches(stage, sent):
    step = communication_of(SHAPE, zero_settings(stage, "bf16"), 8, 3, 0)
    assert step.sent_bytes(8) == pytest.approx(NUMBERS * sent * 7 / 8, rel=1e-3)


def test_bytes_of_stage_3_are_of_a_gather_and_a_scatter_a_micro_batch():
    """A model below the reuse distance is gathered once for both passes, small parameters once a step."""
    zero = zero_settings(3, "bf16")
    small = sum(parameter.size for parameter in SHAPE.parameters if parameter.size <= 100_000)
    step = communication_of(SHAPE, zero, 8, 3, 0)
    expected = 3 * (NUMBERS - small) * 2 + small * 2 + 3 * NUMBERS * 4
    assert step.sent_bytes(8) == pytest.approx(expected * 7 / 8, rel=1e-3)
    # Without reuse, and without looking ahead, once for each pass.
    twice = communication_of(SHAPE, dataclasses.replace(zero, max_reuse=0, prefetch_bucket=0), 8, 3, 0)
    expected += 3 * (NUMBERS - small) * 2
    assert twice.sent_bytes(8) == pytest.approx(expected * 7 / 8, rel=1e-3)


def test_gradients_may_go_to_their_owners_alone():
    zero = zero_settings(2, "bf16")
    everywhere = communication_of(SHAPE, zero, 8, 1, 0)
    to_owners = communication_of(SHAPE, dataclasses.replace(zero, reduces_to_owner=True), 8, 1, 0)
    gathered = NUMBERS * 2 * 7 / 8
    assert everywhere.sent_bytes(8) - gathered == pytest.approx(NUMBERS * 4 * 2 * 7 / 8, rel=1e-3)
    assert to_owners.sent_bytes(8) - gathered == pytest.approx(NUMBERS * 4, rel=1e-3)


def test_buckets_are_filled_in_order_and_large_parameters_go_alone():
    assert filled_buckets([3, 4, 2, 20, 1, 9, 1], 10) == [9, 20, 10, 1]
    assert filled_buckets([], 10) == []


def test_flat_groups_are_padded_for_equal_parts():
    shape = shape_of(DeltaLMConfig.preset("tiny"))
    sizes = [sum(parameter.size for parameter in group) for group in shape.optimizer_groups]
    assert [flat - size for flat, size in zip(flat_sizes(shape, 7), sizes, strict=True)] == [
        -size % 14 for size in sizes
    ]
