import pytest
import torch

from deltalm_ds.training import precision


@pytest.mark.parametrize(("has_unit", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_takes_bf16_only_with_matrix_units(monkeypatch, has_unit, dtype):
    monkeypatch.setattr(precision, "cpu_has_matrix_unit", lambda: has_unit)
    assert precision.default_dtype(torch.device("cpu")) == dtype


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_takes_bf16_unless_it_would_be_emulated(monkeypatch, supported, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert precision.default_dtype(torch.device("cuda")) == dtype
