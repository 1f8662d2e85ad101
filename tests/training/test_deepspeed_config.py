"""The strict reader of DeepSpeed's JSON."""

import json

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.training.deepspeed_config import RequestedBatch, read_deepspeed_config


def read(tmp_path, content, batch=None, micro=None, world_size=2, clipping=1.0, default_dtype="bf16"):
    path = tmp_path / "ds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    requested = RequestedBatch(batch, micro)
    return read_deepspeed_config(
        path, requested, world_size, gradient_clipping=clipping, default_dtype=default_dtype
    )


def refusal(tmp_path, content, **options):
    with pytest.raises(UserError) as error:
        read(tmp_path, content, **options)
    message = str(error.value)
    assert message.startswith(str(tmp_path / "ds.json"))
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n  "bf16": {"enabled": true},\n}', "line 3, column 1"),
        ("", "line 1, column 1"),
        ("[1, 2]", "is an object"),
        ('"auto"', "is an object"),
        ('{"log_level": "info", "log_level": "debug"}', '"log_level" is written twice'),
        ('{"bf16": {"enabled": true, "enabled": false}}', '"enabled" is written twice'),
        ('{"gradient_clipping": NaN}', "NaN is not a JSON number"),
        ('{"gradient_clipping": 1e999}', "gradient_clipping must be a number"),
        ('{"train_batch_size": ' + "9" * 5000 + "}", "not a DeepSpeed configuration"),
        ('{"train_batch_size": ' + "9" * 400 + "}", "train_batch_size must be a whole number"),
        ("[" * 100_000, "not a DeepSpeed configuration"),
    ],
)
def test_malformed_file(tmp_path, text, said):
    assert said in refusal(tmp_path, text)


def test_unreadable_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_deepspeed_config(
            tmp_path / "no.json", RequestedBatch(1, 1), 1, gradient_clipping=1.0, default_dtype="fp32"
        )
    (tmp_path / "ds.json").write_bytes(b'{"log_level": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8 text at byte 15"):
        read_deepspeed_config(
            tmp_path / "ds.json", RequestedBatch(1, 1), 1, gradient_clipping=1.0, default_dtype="fp32"
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"gradient_acumulation_steps": 4}, 'did you mean "gradient_accumulation_steps"?'),
        ({"zero_optimisation": {"stage": 2}}, 'did you mean "zero_optimization"?'),
        ({"zero_optimization": {"stage": 2, "overlap_com": True}}, 'did you mean "overlap_comm"?'),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"pin_memry": True}}},
            'pin_memry is not a key of DeepSpeed\'s configuration; did you mean "pin_memory"?',
        ),
        ({"overlap_comm": True}, "its place is zero_optimization.overlap_comm"),
        ({"fp16": {"gradient_clipping": 1.0}}, "its place is gradient_clipping"),
        ({"zebra": 1}, "zebra is not a key of DeepSpeed's configuration"),
    ],
)
def test_unknown_key(tmp_path, content, said):
    assert refusal(tmp_path, content).endswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"optimizer": {"type": "AdamW"}}, "optimizer is refused: the trainer makes it: use --optimizer"),
        ({"scheduler": {"type": "WarmupLR"}}, "--schedule"),
        ({"activation_checkpointing": {"cpu_checkpointing": True}}, "--checkpoint-every-n-layers"),
        ({"tensorboard": {"enabled": True}}, "TensorBoard files"),
        ({"amp": {"enabled": True}}, "DeepSpeed itself has removed it"),
        ({"managed_gradient_accumulation": False}, "ends each accumulation itself"),
        ({"gradient_allreduce_op": "sum"}, "mean over ranks"),
        ({"checkpoint": {"load_universal": True}}, "loads checkpoints itself"),
        ({"bfloat16": {"enabled": True}}, "write bf16"),
        ({"zero_optimization": {"stage": 3, "max_live_parameters": 9}}, "stage3_max_live_parameters"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"nvme_path": "/x"}}}, "NVMe"),
        ({"zero_optimization": {"stage": 2, "compute_grad_norm": False}}, "records the gradient norm"),
        ({"zero_optimization": True}, "zero_optimization must be an object, not true"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage must be 0, 1, 2 or 3, not 4"),
        ({"zero_optimization": {"stage": True}}, "must be 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": 2, "overlap_comm": "yes"}}, 'must be true or false, not "yes"'),
        ({"train_batch_size": 2.5}, "train_batch_size must be a whole number, 1 or more, not 2.5"),
        ({"train_batch_size": 0}, "train_batch_size must be a whole number, 1 or more, not 0"),
        ({"gradient_clipping": -1}, "gradient_clipping must be a number, 0 or more, not -1"),
        ({"communication_data_type": "fp8"}, 'must be one of "fp32", "bf16", "fp16", not "fp8"'),
        ({"zero_optimization": {"stage": "auto"}}, 'zero_optimization.stage cannot be "auto"'),
        (
            {"zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}},
            'reduce_bucket_size cannot be "auto"',
        ),
        ({"bf16": "auto"}, 'bf16 cannot be "auto"'),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, "are both true"),
        ({"fp16": {"enabled": True}}, "fp16 needs zero_optimization.stage 1, 2 or 3"),
        (
            {"fp16": {"enabled": True, "loss_scale": 64, "hysteresis": 2}, "zero_optimization": {"stage": 2}},
            "without effect beside a fixed fp16.loss_scale, so take it out: fp16.hysteresis",
        ),
        (
            {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp16"}},
            'grad_accum_dtype must be "fp32" or the dtype of the run, bf16',
        ),
        (
            {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "bf16"}},
            'grad_accum_dtype is always "fp32" at ZeRO stage 0',
        ),
        ({"comms_logger": {"enabled": True, "verbose": False}}, "prints nothing unless verbose"),
        ({"steps_per_print": 10, "log_level": "error"}, 'steps_per_print prints at log_level "info" only'),
    ],
)
def test_refused_value(tmp_path, content, said):
    assert said in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("zero", "bf16", "idle"),
    [
        ({"stage": 0, "overlap_comm": True}, False, ["overlap_comm"]),
        ({"stage": 0, "offload_optimizer": {"device": "cpu"}}, False, ["offload_optimizer"]),
        ({"stage": 1, "overlap_comm": True, "allgather_bucket_size": 9}, True, ["overlap_comm"]),
        ({"stage": 1, "overlap_comm": True, "offload_optimizer": {"device": "cpu"}}, True, []),
        ({"stage": 1, "overlap_comm": True}, False, []),
        (
            {"stage": 2, "offload_param": {"device": "cpu"}, "sub_group_size": 9},
            True,
            ["offload_param", "sub_group"],
        ),
        ({"stage": 3, "sub_group_size": 1e8, "overlap_comm": False}, True, []),
        ({"stage": 3, "allgather_bucket_size": 9}, True, ["allgather_bucket_size"]),
    ],
)
def test_keys_without_effect_are_refused(tmp_path, zero, bf16, idle):
    content = {"zero_optimization": zero, "bf16": {"enabled": bf16}}
    if idle:
        message = refusal(tmp_path, content)
        assert "without effect at stage" in message
        assert all(f"zero_optimization.{key}" in message for key in idle)
        assert message.count("only at") == len(idle)
    else:
        assert read(tmp_path, content).resolved["zero_optimization"] == zero


def test_keys_that_ask_for_nothing_are_left_out(tmp_path):
    content = {
        "prescale_gradients": False,
        "gradient_predivide_factor": 1,
        "gradient_allreduce_op": "mean",
        "managed_gradient_accumulation": True,
        "amp": {"enabled": False, "opt_level": "O1"},
        "tensorboard": {"enabled": False},
        "optimizer": None,
        "zero_optimization": {
            "stage": 2,
            "offload_param": None,
            "legacy_stage1": False,
            "cpu_offload": False,
        },
        "fp16": {"enabled": False, "initial_scale_power": 8},
        "comms_logger": {"enabled": False},
    }
    resolved = read(tmp_path, content).resolved
    assert resolved == read(tmp_path, {"zero_optimization": {"stage": 2}}).resolved


def test_false_is_no_way_to_keep_a_default_that_is_true(tmp_path):
    assert "refused" in refusal(
        tmp_path, {"zero_optimization": {"stage": 1, "load_from_fp32_weights": False}}
    )
    assert "refused" in refusal(tmp_path, {"gradient_predivide_factor": True})


@pytest.mark.parametrize(
    ("content", "default", "dtype"),
    [
        ({}, "bf16", "fp32"),
        ({"bf16": {}}, "bf16", "fp32"),
        ({"bf16": {"enabled": "auto"}}, "bf16", "bf16"),
        ({"bf16": {"enabled": "auto"}}, "fp32", "fp32"),
        ({"bf16": {"enabled": True}}, "fp32", "bf16"),
        ({"bf16": {"enabled": False}}, "bf16", "fp32"),
        ({"fp16": {"enabled": "auto"}}, "bf16", "fp32"),
        ({"fp16": {"enabled": "auto"}, "bf16": {"enabled": "auto"}}, "bf16", "bf16"),
        ({"fp16": {"enabled": True}, "bf16": {"enabled": "auto"}}, "bf16", "fp16"),
    ],
)
def test_dtype(tmp_path, content, default, dtype):
    config = read(tmp_path, {**content, "zero_optimization": {"stage": 2}}, default_dtype=default)
    assert config.dtype == dtype
    assert [config.resolved[name]["enabled"] for name in ("bf16", "fp16")] == [
        dtype == "bf16",
        dtype == "fp16",
    ]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradients_are_summed_in_fp32_by_default(tmp_path, stage):
    content = {"zero_optimization": {"stage": stage}, "bf16": {"enabled": True}}
    resolved = read(tmp_path, content).resolved
    assert resolved["communication_data_type"] == "fp32"
    # DeepSpeed raises on the key at stage 0.
    assert resolved.get("data_types") == ({"grad_accum_dtype": "fp32"} if stage else None)
    chosen = read(tmp_path, {**content, "communication_data_type": "bf16"}).resolved
    assert chosen["communication_data_type"] == "bf16"


def test_loss_scale(tmp_path):
    def loss_scale(**section):
        content = {"zero_optimization": {"stage": 2}, "fp16": {"enabled": True, **section}}
        config = read(tmp_path, content)
        return config.dynamic_loss_scale, config.resolved["fp16"]

    dynamic, given = loss_scale(initial_scale_power=4, loss_scale_window=250)
    assert dynamic.growth_interval == 250
    assert given["initial_scale_power"] == 4
    assert given["loss_scale_window"] > 10**9  # the trainer lets it grow
    assert loss_scale()[0].growth_interval == 1000
    assert loss_scale(loss_scale=128) == (None, {"enabled": True, "loss_scale": 128})


@pytest.mark.parametrize(
    ("file", "batch", "micro", "world_size", "expected"),
    [
        ({}, None, None, 1, (32, 8, 4)),
        ({}, None, None, 2, (32, 8, 2)),
        ({}, None, None, 64, (32, 1, 1)),
        ({}, 10, None, 2, (10, 5, 1)),
        ({}, 10, 4, 2, (10, 4, 2)),
        ({}, 10, 4, 3, (10, 4, 1)),
        ({"train_batch_size": 2048}, None, None, 8, (2048, 8, 32)),
        ({"train_batch_size": 2048}, None, 16, 8, (2048, 16, 16)),
        ({"train_batch_size": 10, "train_micro_batch_size_per_gpu": 3}, 10, 3, 2, (10, 3, 2)),
        ({"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto"}, 12, 6, 1, (12, 6, 2)),
        ({"train_micro_batch_size_per_gpu": 3, "gradient_accumulation_steps": 2}, None, None, 2, (12, 3, 2)),
        ({"train_batch_size": 7, "gradient_accumulation_steps": 3}, None, None, 2, (7, 2, 3)),
        ({"gradient_accumulation_steps": 4}, None, None, 2, (32, 4, 4)),
        ({"gradient_accumulation_steps": 3}, 24, 4, 2, (24, 4, 3)),
        ({"train_micro_batch_size_per_gpu": 1e0}, None, None, 2, (32, 1, 16)),
    ],
)
def test_batch(tmp_path, file, batch, micro, world_size, expected):
    config = read(tmp_path, file, batch=batch, micro=micro, world_size=world_size)
    assert (
        config.global_batch_size,
        config.micro_batch_size,
        config.gradient_accumulation_steps,
    ) == expected
    total, largest, accumulation = expected
    assert largest * accumulation * world_size >= total
    assert "train_batch_size" not in config.resolved
    assert config.resolved["train_micro_batch_size_per_gpu"] == largest
    assert config.resolved["gradient_accumulation_steps"] == accumulation


@pytest.mark.parametrize(
    ("file", "batch", "micro", "said"),
    [
        (
            {"train_batch_size": 64},
            32,
            None,
            "train_batch_size is 64, but the command line says --batch-size 32",
        ),
        ({"train_micro_batch_size_per_gpu": 4}, None, 8, "says --micro-batch-size 8"),
        ({"train_batch_size": 64, "gradient_accumulation_steps": 2}, None, 8, "take 4: leave it out"),
        ({"train_batch_size": 6, "gradient_accumulation_steps": 4}, None, None, "only 3 of the 6 samples"),
        ({}, 4, 8, "a micro-batch of 8 samples is larger than the global batch of 4"),
    ],
)
def test_batch_numbers_that_exclude_each_other(tmp_path, file, batch, micro, said):
    assert said in refusal(tmp_path, file, batch=batch, micro=micro)


def test_gradient_clipping(tmp_path):
    assert read(tmp_path, {}, clipping=0.5).gradient_clipping == 0.5
    assert read(tmp_path, {"gradient_clipping": "auto"}, clipping=0.5).resolved["gradient_clipping"] == 0.5
    assert read(tmp_path, {"gradient_clipping": 0}, clipping=0.5).resolved["gradient_clipping"] == 0.0


def test_log_level_follows_what_prints_through_the_log(tmp_path):
    assert read(tmp_path, {}).resolved["log_level"] == "warning"
    assert read(tmp_path, {"dump_state": True}).resolved["log_level"] == "info"
    assert read(tmp_path, {"steps_per_print": 5, "log_level": "debug"}).resolved["log_level"] == "debug"
    resolved = read(tmp_path, {"comms_logger": {"enabled": True}}).resolved
    assert resolved["log_level"] == "info"
    assert resolved["comms_logger"] == {"enabled": True, "verbose": True}


def test_saved_as_printed(tmp_path):
    config = read(tmp_path, {"zero_optimization": {"stage": 3, "stage3_max_live_parameters": 1e9}})
    config.save(tmp_path / "resolved.json")
    text = (tmp_path / "resolved.json").read_text()
    assert text == config.to_json()
    assert json.loads(text) == config.resolved
    assert '"stage3_max_live_parameters": 1000000000' in text
    assert len(text.splitlines()) > 10
