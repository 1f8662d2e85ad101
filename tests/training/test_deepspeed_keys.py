"""Every key that the installed DeepSpeed reads is decided on."""

import deepspeed
import pytest
from deepspeed.comm.config import CommsLoggerConfig
from deepspeed.runtime import config as installed
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
from deepspeed.runtime.zero import config as installed_zero
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.leaf_module_config import DeepSpeedZeroLeafModuleConfig
from deepspeed.runtime.zero.offload_config import (
    DeepSpeedZeroOffloadOptimizerConfig,
    DeepSpeedZeroOffloadParamConfig,
)
from deepspeed.utils.config import DeepSpeedThroughputTimerConfig

from deltalm_ds.training.deepspeed_keys import TOP_LEVEL
from deltalm_ds.training.deepspeed_schema import Passed, Resolved, Section

SECTIONS = {
    "zero_optimization": DeepSpeedZeroConfig,
    "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
    "zero_optimization.offload_param": DeepSpeedZeroOffloadParamConfig,
    "zero_optimization.leaf_module": DeepSpeedZeroLeafModuleConfig,
    "bf16": DeepSpeedBF16Config,
    "fp16": DeepSpeedFP16Config,
    "comms_logger": CommsLoggerConfig,
    "timers.throughput": DeepSpeedThroughputTimerConfig,
}


class Watched(dict):
    """A dictionary that notes every key somebody asks for."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.asked = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.asked.add(key)
        return super().__contains__(key)

    def keys(self):
        return self

    def __copy__(self):
        return self


@pytest.fixture
def one_process(monkeypatch):
    monkeypatch.setattr(deepspeed.comm, "get_rank", lambda *_: 0)
    monkeypatch.setattr(deepspeed.comm, "get_world_size", lambda *_: 1)


def keys_asked_for(**content):
    watched = Watched(train_micro_batch_size_per_gpu=1, **content)
    installed.DeepSpeedConfig(watched)
    return watched.asked


def all_top_level_keys():
    # A boolean is the old form of zero_optimization, read with keys of its own.
    return keys_asked_for() | keys_asked_for(zero_optimization=True)


def keys_of_section(name):
    decisions = TOP_LEVEL
    for part in name.split("."):
        decisions = decisions[part].keys
    return decisions


def test_every_top_level_key_is_decided(one_process):
    asked = all_top_level_keys()
    assert len(asked) > 50  # the watching works
    assert asked - set(TOP_LEVEL) == set(), "decide on these keys in deepspeed_keys.py"


def test_a_new_key_of_deepspeed_is_noticed(one_process, monkeypatch):
    monkeypatch.setattr(installed, "get_dump_state", lambda file: file.get("dump_everything", False))
    assert all_top_level_keys() - set(TOP_LEVEL) == {"dump_everything"}


def test_keys_that_are_passed_on_are_still_read(one_process):
    given = {
        name for name, decision in TOP_LEVEL.items() if isinstance(decision, (Passed, Section, Resolved))
    }
    assert given - all_top_level_keys() == set(), "DeepSpeed does not read these any more"


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_a_section_is_decided(name):
    fields = SECTIONS[name].model_fields
    known = set(fields) | {field.alias for field in fields.values() if field.alias}
    decisions = keys_of_section(name)
    assert known - set(decisions) == set(), f"decide on these keys of {name} in deepspeed_keys.py"
    given = {key for key, decision in decisions.items() if isinstance(decision, (Passed, Resolved, Section))}
    assert given - known == set(), "DeepSpeed does not read these any more"


def test_every_data_type_is_decided(one_process):
    section = Watched()
    keys_asked_for(data_types=section)
    assert section.asked == set(keys_of_section("data_types"))


def test_every_timer_is_decided(one_process):
    section = Watched()
    keys_asked_for(timers=section)
    assert section.asked == set(keys_of_section("timers"))


def test_removed_keys_are_decided():
    assert set(installed._REMOVED_TOP_LEVEL_CONFIG_KEYS) <= set(TOP_LEVEL)
    assert set(installed._REMOVED_ZERO_CONFIG_KEYS) <= set(keys_of_section("zero_optimization"))


def test_sections_of_zero_are_compared_with_their_own_models():
    nested = {
        f"zero_optimization.{key}"
        for key, decision in keys_of_section("zero_optimization").items()
        if isinstance(decision, Section)
    }
    assert nested <= set(SECTIONS)
    assert installed_zero.ZeroStageEnum.max_stage == 3
