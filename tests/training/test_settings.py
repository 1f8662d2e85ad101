from pathlib import Path

import pytest

from deltalm_ds.commands import parse
from deltalm_ds.errors import UserError
from deltalm_ds.training.optimizer import OptimizerSettings
from deltalm_ds.training.settings import SAMPLE_RUN, MonitoringSettings, PretrainSettings

DATA = Path("data")


def test_base_takes_the_papers_run():
    settings = PretrainSettings(data=DATA, preset="base").complete()
    assert (settings.steps, settings.default_batch_size) == (600_000, 2048)
    assert settings.optimizer_settings.learning_rate == 2e-4
    assert settings.optimizer_settings.warmup_steps == 10_000
    assert settings.optimizer_settings.weight_decay == 0.01
    assert (settings.optimizer_settings.adam_beta1, settings.optimizer_settings.adam_beta2) == (0.9, 0.999)
    assert settings.optimizer_settings.gradient_clipping == 1.0
    assert settings.layer_norm == "post"


def test_small_models_shorten_the_warmup_with_the_run():
    settings = PretrainSettings(data=DATA, preset="small", steps=500).complete()
    assert settings.optimizer_settings.warmup_steps == 50


def test_what_the_user_says_stays():
    optimizer = OptimizerSettings(learning_rate=1e-5, warmup_steps=0)
    settings = PretrainSettings(data=DATA, preset="large", steps=7, optimizer_settings=optimizer).complete()
    assert (settings.steps, settings.optimizer_settings) == (7, optimizer)


def test_the_sample_has_a_short_run_of_its_own_unless_told_otherwise():
    assert PretrainSettings().is_sample_run
    assert not PretrainSettings(data=DATA).is_sample_run
    assert not PretrainSettings(preset="small").is_sample_run
    settings = parse(PretrainSettings, "pretrain", [], SAMPLE_RUN).complete()
    assert (settings.layer_norm, settings.dropout, settings.steps) == ("pre", 0.0, 400)
    assert settings.data_settings.max_source_length == 128
    # Also what is told and is the default elsewhere.
    told = {"dropout": 0.1, "layer-norm": "post", "max-source-length": 512, "log-every": 10, "steps": 3}
    options = [part for name, value in told.items() for part in (f"--{name}", str(value))]
    settings = parse(PretrainSettings, "pretrain", options, SAMPLE_RUN).complete()
    assert (settings.layer_norm, settings.dropout, settings.steps) == ("post", 0.1, 3)
    assert (settings.data_settings.max_source_length, settings.data_settings.max_target_length) == (512, 128)
    assert (settings.monitoring.log_every, settings.monitoring.text_samples) == (10, 4)


def test_a_resumed_run_keeps_its_preset_unless_told_otherwise():
    assert PretrainSettings(data=DATA).complete("base").steps == 600_000
    assert PretrainSettings(data=DATA, preset="small").complete("base").preset == "small"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "--steps"),
        ({"seed": -1}, "--seed"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"resume": True}, "--output"),
        ({"resume": True, "output": Path("x"), "from_": Path("y")}, "--from"),
        ({"from_": Path("y"), "layer_norm": "pre"}, "--layer-norm"),
        ({"from_": Path("y"), "embedding_layer_norm": False}, "--embedding-layer-norm"),
        ({"decoder": "standard", "cross_attention_start": "copied"}, "with --from an XLM-R"),
        ({"from_": Path("y"), "cross_attention_start": "random"}, "is for --decoder standard"),
        (
            {"from_": Path("y"), "decoder": "interleaved", "cross_attention_start": "copied"},
            "is for --decoder standard",
        ),
    ],
)
def test_impossible_settings_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        PretrainSettings(**values)


@pytest.mark.parametrize("values", [{"log_every": 0}, {"keep_checkpoints": 0}, {"peak_tflops": 0.0}])
def test_impossible_monitoring_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values)).replace("_", "-")):
        MonitoringSettings(**values)


@pytest.mark.parametrize("values", [{"learning_rate": 0.0}, {"warmup_steps": -1}, {"adam_beta2": 1.0}])
def test_impossible_optimizers_are_refused(values):
    with pytest.raises(UserError):
        OptimizerSettings(**values)
