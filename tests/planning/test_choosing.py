"""Options, the best of them, and the written configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.planning.activations import MicroBatch
from deltalm_ds.planning.choosing import best_of, largest_kind, on_devices, options_of
from deltalm_ds.planning.configuration import SECTIONS, configuration, zero_settings
from deltalm_ds.planning.memory import peak_memory
from deltalm_ds.planning.settings import AssumedSettings, PlanSettings
from deltalm_ds.training.deepspeed_batch import RequestedBatch
from deltalm_ds.training.deepspeed_config import read_deepspeed_config

DS_CONFIGS = Path(__file__).parents[2] / "ds_configs"


def test_the_largest_micro_batch_fits_and_the_next_does_not():
    settings = PlanSettings(model="base", gpus_per_node=2, gpu="a100-40gb")
    room = 40e9 * 0.9
    kind = largest_kind(settings)
    assert (kind.source_length, kind.target_length) == (341, 340)
    for option in options_of(settings):
        assert option.fits
        assert option.memory.total <= room
        for samples, does_fit in (
            (option.largest_micro_batch, True),
            (option.largest_micro_batch + 1, False),
        ):
            batch = MicroBatch(samples, kind.source_length, kind.target_length)
            zero = zero_settings(option.stage, "bf16")
            more = {"num_micro_steps": 2, "every": option.every}
            memory = peak_memory(settings.shape, zero, 2, batch, **more)
            assert (memory.total <= room) is does_fit


def test_micro_batches_are_equal_and_hold_the_share():
    for option in options_of(PlanSettings(model="large", gpus_per_node=4, gpu="l40s")):
        if option.fits:
            assert option.micro_batch * option.num_micro_steps >= 512
            assert option.micro_batch * (option.num_micro_steps - 1) < 512
            assert option.micro_batch <= max(option.largest_micro_batch, 512 * (option.num_micro_steps == 1))


def test_the_best_is_the_fastest_that_fits():
    options = options_of(PlanSettings(model="xl", nodes=2, gpu="h100"))
    best = best_of(options)
    assert best is not None
    fitting = [option for option in options if option.fits]
    assert best.time.total == pytest.approx(min(option.time.total for option in fitting), abs=1e-6)


def test_nothing_fits_a_model_that_is_too_large():
    options = options_of(PlanSettings(model="xxl", gpus_per_node=1, gpu="h100"))
    assert best_of(options) is None
    assert all(option.time is None and option.largest_micro_batch == 0 for option in options)


def test_a_run_on_other_numbers_of_devices():
    settings = PlanSettings(nodes=8)
    assert [
        (other.nodes, other.gpus_per_node) for other in (on_devices(settings, n) for n in (1, 4, 8, 16, 1024))
    ] == [(1, 1), (1, 4), (1, 8), (2, 8), (128, 8)]


def test_a_cpu_is_planned_in_fp32_without_times():
    settings = PlanSettings(model="tiny", gpu="cpu", gpus_per_node=2, batch_size=8, vocabulary_rows=4000)
    options = options_of(settings)
    assert {option.time for option in options} == {None}
    assert all(option.memory.parts["process"] for option in options)
    best = best_of(options)
    assert best is not None
    assert (best.stage, best.every, best.num_micro_steps) == (0, 0, 1)


def test_less_room_means_smaller_micro_batches():
    settings = PlanSettings(model="base", gpus_per_node=1)
    tight = dataclasses.replace(settings, assumed=AssumedSettings(reserve=0.8))
    for option, less in zip(options_of(settings), options_of(tight), strict=True):
        assert less.largest_micro_batch < option.largest_micro_batch


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sections_are_the_shipped_ones(stage):
    shipped = json.loads((DS_CONFIGS / f"zero{stage}.json").read_text())
    assert SECTIONS[stage] == shipped["zero_optimization"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_reader_accepts_what_is_written(tmp_path, stage, dtype):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(configuration(stage, dtype, 2048, 43)))
    config = read_deepspeed_config(
        path, RequestedBatch(None, None), 16, gradient_clipping=1.0, default_dtype="fp32"
    )
    assert (config.zero_stage, config.dtype) == (stage, dtype)
    assert (config.global_batch_size, config.micro_batch_size) == (2048, 43)
    assert config.gradient_accumulation_steps == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nodes": 0}, "--nodes must be at least 1, not 0"),
        ({"source_length": 100}, "--source-length and --target-length belong together"),
        ({"text_length": 513}, "--text-length must lie in 2..512"),
        ({"source_length": 600, "target_length": 10}, "--source-length must lie in 2..512"),
        ({"network_gbps": 0.0}, "--network-gbps must be above 0"),
        ({"gpu": "cpu", "network_gbps": 1.0}, "--network-gbps is for times"),
        ({"gpu": "cpu", "picture": Path("a.svg")}, "--picture shows times"),
        ({"picture": Path("a.pdf")}, "--picture a.pdf must end with .svg or .png"),
        ({"nodes": 300}, "2400 devices for a global batch of 2048 samples"),
    ],
)
def test_impossible_settings(values, words):
    with pytest.raises(UserError, match=words):
        PlanSettings(**values)


@pytest.mark.parametrize("values", [{"mfu": 0.0}, {"mfu": 1.1}, {"link_efficiency": -1.0}, {"reserve": 1.0}])
def test_impossible_assumptions(values):
    with pytest.raises(UserError, match=next(iter(values)).replace("_", "-")):
        AssumedSettings(**values)
