"""Which dtype products are taken in, and that the detour through fp32 loses nothing."""

import pytest
import torch

from deltalm_ds import ops
from deltalm_ds.ops import products


@pytest.fixture(params=[True, False], ids=["matrix unit", "no matrix unit"])
def matrix_unit(request, monkeypatch):
    monkeypatch.setattr(products, "cpu_has_matrix_unit", lambda: request.param)
    return request.param


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_only_16_bits_without_a_matrix_unit_are_multiplied_in_fp32(matrix_unit, dtype):
    calculated = products.calculation_dtype(torch.zeros(1, dtype=dtype))
    assert calculated == (torch.float32 if dtype.itemsize == 2 and not matrix_unit else dtype)
    assert products.calculation_dtype(torch.zeros(1, dtype=dtype, device="meta")) == dtype


@pytest.mark.usefixtures("matrix_unit")
@pytest.mark.parametrize("with_bias", [True, False])
def test_bf16_linear_is_rounded_once(with_bias):
    torch.manual_seed(0)
    shapes = ((700, 200), (30, 200), (30,)) if with_bias else ((700, 200), (30, 200))
    inputs = [torch.randn(shape).bfloat16().requires_grad_() for shape in shapes]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    ours, reference = ops.linear(*inputs), torch.nn.functional.linear(*exact)
    grad = torch.randn(700, 30).bfloat16()
    results = [ours, *torch.autograd.grad(ours, inputs, grad)]
    expected = [reference, *torch.autograd.grad(reference, exact, grad.double())]
    for mine, wanted in zip(results, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.double() - wanted).norm() < 4e-3 * wanted.norm()
