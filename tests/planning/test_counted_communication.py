"""The planner's collectives against those that DeepSpeed calls, counted over gloo."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from collectives import count_collectives
from distributed import run_distributed
from plan_run import MadeUpRun, model_config, read_config

from deltalm_ds.planning.activations import MicroBatch
from deltalm_ds.planning.communication import communication_of
from deltalm_ds.planning.shapes import shape_of
from deltalm_ds.planning.zero import ZeroSettings
from deltalm_ds.training.distributed import join_processes

MODEL = {
    "width": 64,
    "feed_forward_width": 256,
    "num_heads": 2,
    "num_encoder_layers": 4,
    "num_decoder_blocks": 2,
    "vocabulary_rows": 1_001,
}
BATCH = MicroBatch(2, 12, 8)
SMALL = 5_000
"""Bytes of a call: norms, flags, and the lists of modules that ranks compare, are smaller; every matrix and
the position tables are larger. What is counted below is left out on both sides."""

CASES = [
    # stage, recomputed layers, micro-batches, keys of zero_optimization
    (0, 0, 1, {}),
    (0, 1, 2, {}),
    (1, 0, 2, {}),
    (2, 0, 1, {}),
    (2, 1, 2, {"reduce_bucket_size": 40_000, "overlap_comm": True}),
    (2, 0, 1, {"use_multi_rank_bucket_allreduce": False, "reduce_bucket_size": 40_000}),
    (3, 0, 1, {}),
    (3, 1, 2, {"stage3_param_persistence_threshold": 0}),
    (
        *(3, 1, 1),
        {
            "stage3_param_persistence_threshold": 100,
            "stage3_max_reuse_distance": 60_000,
            "stage3_prefetch_bucket_size": 30_000,
            "stage3_max_live_parameters": 120_000,
        },
    ),
    (
        *(3, 2, 2),
        {
            "stage3_param_persistence_threshold": 300,
            "stage3_max_reuse_distance": 0,
            "stage3_prefetch_bucket_size": 0,
            "reduce_bucket_size": 40_000,
        },
    ),
]


def counted(cases):
    """For each case, by operation: bytes and calls of a step, the third."""
    calls = count_collectives()
    process = join_processes()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for stage, every, num_micro_steps, zero in cases:
            path = Path(folder) / "config.json"
            path.write_text(json.dumps({"zero_optimization": {"stage": stage, **zero}}))
            config = read_config(path, process.world_size, BATCH.num_samples, num_micro_steps)
            run = MadeUpRun(model_config(**MODEL), config, BATCH, every)
            for number in range(3):
                calls.clear()
                run.step(number)
            results.append(totals(calls))
            run.engine.deepspeed.destroy()
    return results


def totals(calls):
    numbers = Counter()
    for call in calls:
        if call.num_bytes >= SMALL:
            numbers[f"bytes of {call.operation}"] += call.num_bytes
            numbers[f"calls of {call.operation}"] += 1
    return dict(numbers)


@pytest.mark.parametrize("num_ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_communication_is_as_planned(num_ranks):
    outcomes = run_distributed(counted, num_ranks, cases=CASES)
    shape = shape_of(model_config(**MODEL))
    for case, found in zip(CASES, outcomes[0].value, strict=True):
        stage, every, num_micro_steps, zero = case
        settings = ZeroSettings.of({"stage": stage, **zero}, "fp32")
        planned = communication_of(shape, settings, num_ranks, num_micro_steps, every)
        expected = totals(planned.calls())
        assert found.keys() == expected.keys(), case
        for name, value in expected.items():
            # All bytes, and where nothing is cut into slices by owner, all calls.
            exact = name.startswith("bytes") or stage == 3
            if exact:
                assert found[name] == pytest.approx(value, rel=0.02), (case, name)
    assert all(outcome.value == outcomes[0].value for outcome in outcomes)
