"""A rank's memory: the ledger, states by hand, and how the peak follows from choices.

benchmarks/plan_memory.py compares whole peaks with measured ones.
"""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.activations import Activations, MicroBatch
from deltalm_ds.planning.communication import flat_sizes
from deltalm_ds.planning.configuration import zero_settings
from deltalm_ds.planning.ledger import Ledger
from deltalm_ds.planning.memory import peak_memory
from deltalm_ds.planning.shapes import shape_of

SHAPE = shape_of(DeltaLMConfig.preset("base"))
NUMBERS = 362_981_376
BATCH = MicroBatch(8, 512, 114)


def test_the_ledger_keeps_the_moment_of_the_peak():
    ledger = Ledger()
    ledger.phase = "first"
    ledger.hold("weights", 10)
    with ledger.during("logits", 5):
        ledger.phase = "second"
        ledger.touch("activations", 7)
    ledger.release("weights", 4)
    ledger.hold("gradients", 2)
    assert (ledger.peak_total, ledger.peak_phase) == (22, "second")
    assert {part: size for part, size in ledger.peak.items() if size} == {
        "weights": 10,
        "logits": 5,
        "activations": 7,
    }
    assert [ledger.held(part) for part in ("weights", "logits", "gradients")] == [6, 0, 2]
    with pytest.raises(AssertionError, match="logits released twice"):
        ledger.release("logits", 3)


def held(stage, dtype="bf16", num_ranks=8):
    memory = peak_memory(SHAPE, zero_settings(stage, dtype), num_ranks, BATCH)
    return {part: size / NUMBERS for part, size in memory.parts.items()}


def test_states_of_each_stage_in_bytes_a_number():
    """16-bit weights, fp32 masters and moments: 2 + 12, of which ZeRO parts what it parts."""
    assert held(0)["weights"] == pytest.approx(2)
    assert held(0)["optimizer"] == pytest.approx(12)
    for stage in (1, 2, 3):
        assert held(stage)["optimizer"] == pytest.approx(12 / 8, rel=1e-4)
    assert held(2)["weights"] == pytest.approx(2, rel=1e-4)
    # At the loss everything is gathered beside the rank's part: the model is smaller than the reuse distance.
    assert held(3)["weights"] == pytest.approx(2 / 8 + 2, rel=0.01)
    # BF16_Optimizer: gradients of everything in bf16 and in fp32.
    table = SHAPE.table_size / NUMBERS
    assert held(1)["gradients"] == pytest.approx(6 + 2 * table, rel=1e-4)
    assert held(2)["gradients"] == pytest.approx(2 * table, rel=1e-4)
    assert held(3)["gradients"] == pytest.approx(4 / 8 + 2 * table, rel=1e-4)


def test_fp32_has_a_second_copy_of_the_weights_as_masters_from_stage_1_on():
    for stage, bytes_a_number in ((0, 8), (1, 12 / 2), (2, 12 / 2), (3, 12 / 2)):
        memory = peak_memory(SHAPE, zero_settings(stage, "fp32"), 2, BATCH, way="cpu")
        assert memory.parts["optimizer"] / NUMBERS == pytest.approx(bytes_a_number, rel=1e-4)


def test_stage_3_lets_go_of_what_is_not_used_again_soon():
    zero = dataclasses.replace(zero_settings(3, "bf16"), max_reuse=0, prefetch_bucket=0)
    memory = peak_memory(SHAPE, zero, 8, BATCH)
    small = sum(p.size for p in SHAPE.parameters if p.size <= 100_000)
    assert memory.phase == "loss"
    # The rank's part, what is kept, and the table, whose numbers the loss reads.
    expected = 2 * (NUMBERS / 8 + small + SHAPE.table_size)
    assert memory.parts["weights"] == pytest.approx(expected, rel=0.001)


def test_checkpointing_keeps_a_layer_s_output():
    activations = Activations(SHAPE.config, BATCH, 2, "torch")
    none, every, half = (
        peak_memory(SHAPE, zero_settings(2, "bf16"), 8, BATCH, every=number).parts["activations"]
        for number in (0, 1, 2)
    )
    layers = [unit for unit in SHAPE.units if unit.layer is not None]
    kept = sum(map(activations.kept, layers))
    outputs = 12 * activations.hidden("source") + 6 * activations.hidden("target")
    assert none - every == pytest.approx(kept - outputs, rel=0.05)
    assert half == pytest.approx((none + every) / 2, rel=0.05)


def test_memory_grows_with_the_micro_batch_as_activations_do():
    peaks = [peak_memory(SHAPE, zero_settings(2, "bf16"), 8, MicroBatch(n, 512, 114)) for n in (8, 16, 32)]
    first, second = (after.total - before.total for before, after in itertools.pairwise(peaks))
    activations = Activations(SHAPE.config, MicroBatch(8, 512, 114), 2, "torch")
    kept = sum(map(activations.kept, SHAPE.units))
    assert first > kept
    assert second == pytest.approx(2 * kept, rel=0.35)  # logits of a chunk have stopped growing


def test_a_second_micro_batch_finds_the_first_one_s_gradients():
    for stage, bytes_a_number in ((0, 4), (1, 0), (2, 4 / 8), (3, 0)):
        one, two = (
            peak_memory(SHAPE, zero_settings(stage, "bf16"), 8, BATCH, num_micro_steps=number).total
            for number in (1, 2)
        )
        assert (two - one) / NUMBERS == pytest.approx(bytes_a_number, abs=0.01), stage


def test_buckets_count_whole_on_a_gpu_and_as_far_as_filled_on_a_cpu():
    zero = dataclasses.replace(zero_settings(2, "fp32"), reduce_bucket=10**9)
    small = MicroBatch(1, 4, 4)
    on_gpu = peak_memory(SHAPE, zero, 2, small, way="torch")
    on_cpu = peak_memory(SHAPE, zero, 2, small, way="cpu")
    assert on_gpu.parts["buckets"] >= 2 * 4 * 10**9
    assert on_cpu.parts["buckets"] == pytest.approx(2 * 4 * NUMBERS, rel=0.01)  # and its flat copy


@pytest.mark.parametrize("num_ranks", [1, 3, 1024])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_number_of_ranks_can_be_planned(num_ranks, stage, dtype):
    memory = peak_memory(SHAPE, zero_settings(stage, dtype), num_ranks, BATCH, every=2, num_micro_steps=3)
    assert memory.total == pytest.approx(sum(memory.parts.values()))
    least = sum(flat_sizes(SHAPE, num_ranks)) / num_ranks * 12
    assert memory.total > least
