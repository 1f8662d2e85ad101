from pathlib import Path

import pytest
import torch
from deepspeed.accelerator import get_accelerator

from deltalm_ds.errors import UserError
from deltalm_ds.training import precision


@pytest.mark.parametrize(("has_unit", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_takes_bf16_only_with_matrix_units(monkeypatch, has_unit, dtype):
    monkeypatch.setattr(precision, "cpu_has_matrix_unit", lambda: has_unit)
    assert precision.default_dtype(torch.device("cpu")) == dtype


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_takes_bf16_unless_it_would_be_emulated(monkeypatch, supported, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert precision.default_dtype(torch.device("cuda")) == dtype


@pytest.mark.parametrize("supported", [True, False])
def test_fp16_is_refused_in_one_line_where_deepspeed_cannot_run_it(monkeypatch, supported):
    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: supported)
    path = Path("zero2_fp16.json")
    precision.check_dtype("bf16", path)
    if supported:
        precision.check_dtype("fp16", path)
        return
    with pytest.raises(UserError, match=r"^zero2_fp16\.json: DeepSpeed runs no fp16 .* take .*zero2\.json$"):
        precision.check_dtype("fp16", path)
