import dataclasses
import math
import sys

import pytest
import torch

from deltalm_ds.errors import UserError
from deltalm_ds.training.optimizer import OptimizerSettings, build_optimizer, check_optimizer


def made_model():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))


def test_only_matrices_decay():
    model = made_model()
    optimizer = build_optimizer(
        model, OptimizerSettings(weight_decay=0.3, adam_beta2=0.98), torch.device("cpu")
    )
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }
    assert optimizer.defaults["betas"] == (0.9, 0.98)


def test_apex_is_asked_for_by_name_and_refused_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", None)
    with pytest.raises(UserError, match="--optimizer adamw"):
        build_optimizer(made_model(), OptimizerSettings(optimizer="apex"), torch.device("cpu"))


def test_apex_is_refused_where_the_optimizer_runs_on_the_cpu():
    apex, gpu, cpu = OptimizerSettings(optimizer="apex"), torch.device("cuda", 0), torch.device("cpu")
    check_optimizer(apex, gpu, offload=False)
    check_optimizer(OptimizerSettings(), cpu, offload=True)
    with pytest.raises(UserError, match=r"offload_optimizer .*--optimizer adamw"):
        check_optimizer(apex, gpu, offload=True)
    with pytest.raises(UserError, match="on the CPU: use --optimizer adamw"):
        check_optimizer(apex, cpu, offload=False)


NUMBERS = [field.name for field in dataclasses.fields(OptimizerSettings) if "float" in str(field.type)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_finite(name, value):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be a finite number, not {value}"):
        OptimizerSettings(**{name: value})
