"""The operations on single tokens against their formulas in fp64."""

import pytest
import torch
from torch.autograd import gradcheck

from deltalm_ds import ops
from deltalm_ds.ops import Dropout
from deltalm_ds.ops.dropout import keep_mask

EPSILON = 1e-5
TOKENS, FEATURES = 70, 140


def here(probability=0.25):
    return Dropout(
        probability=probability,
        seed=1,
        step=2,
        layer=3,
        site=4,
        sample_of_token=torch.arange(TOKENS) // 5,
        index_of_token=torch.arange(TOKENS) % 5,
    )


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(TOKENS, FEATURES, generator=generator) for _ in range(2))
    bias, gamma, beta = (torch.randn(FEATURES, generator=generator) for _ in range(3))
    return [tensor.to(dtype).requires_grad_() for tensor in (x, bias, residual, gamma + 2, beta)]


def dropped(x, dropout):
    return x if dropout is None else x * keep_mask(dropout, x.shape[1]) * dropout.scale


def normalised(x, gamma, beta):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPSILON).sqrt() * gamma + beta


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def formulas(dropout):
    """The operation, its formula; both of (x, bias, residual, gamma, beta)."""

    def summed(x, bias, residual):
        return residual + dropped(x + bias, dropout)

    return {
        "dropout_add_layer_norm": (
            lambda x, bias, residual, gamma, beta: ops.dropout_add_layer_norm(
                x, bias, residual, gamma, beta, dropout, EPSILON
            ),
            lambda x, bias, residual, gamma, beta: normalised(summed(x, bias, residual), gamma, beta),
        ),
        "dropout_add": (
            lambda x, bias, residual, gamma, beta: ops.dropout_add(x, bias, residual, dropout),
            lambda x, bias, residual, gamma, beta: summed(x, bias, residual),
        ),
        "layer_norm": (
            lambda x, bias, residual, gamma, beta: ops.layer_norm(x, gamma, beta, EPSILON),
            lambda x, bias, residual, gamma, beta: normalised(x, gamma, beta),
        ),
        "apply_dropout": (
            lambda x, bias, residual, gamma, beta: ops.apply_dropout(x, dropout),
            lambda x, bias, residual, gamma, beta: dropped(x, dropout),
        ),
        "bias_gelu_linear": (
            lambda x, bias, residual, gamma, beta: ops.bias_gelu_linear(x, bias, residual),
            lambda x, bias, residual, gamma, beta: gelu(x + bias) @ residual.t(),
        ),
        "linear": (
            lambda x, bias, residual, gamma, beta: ops.linear(x, residual, residual[:, 0]),
            lambda x, bias, residual, gamma, beta: x @ residual.t() + residual[:, 0],
        ),
        "linear without bias": (
            lambda x, bias, residual, gamma, beta: ops.linear(x, residual),
            lambda x, bias, residual, gamma, beta: x @ residual.t(),
        ),
        "bias_gelu": (
            lambda x, bias, residual, gamma, beta: ops.bias_gelu(x, bias),
            lambda x, bias, residual, gamma, beta: gelu(x + bias),
        ),
    }


NAMES = list(formulas(None))


def results(function, tensors):
    """Output and the gradients of a fixed weighting of it."""
    output = function(*tensors)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(tensors[0].dtype)
    gradients = torch.autograd.grad((output * weights).sum(), tensors, allow_unused=True)
    return [output, *gradients]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dropout", [None, here()], ids=["plain", "dropout"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_formula_and_gradients(name, dropout, dtype, tolerance):
    operation, formula = formulas(dropout)[name]
    tensors = inputs(dtype)
    expected = results(formula, [tensor.detach().double().requires_grad_() for tensor in tensors])
    for ours, exact in zip(results(operation, tensors), expected, strict=True):
        assert (ours is None) == (exact is None)
        if exact is not None:
            assert ours.dtype == dtype
            error = (ours.double() - exact).norm() / exact.norm()
            assert error < tolerance


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    operation, _ = formulas(here())[name]
    assert gradcheck(operation, inputs(), fast_mode=True)


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("name", NAMES)
def test_no_tokens(name):
    nothing = Dropout(0.25, 1, 2, 3, 4, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    operation, _ = formulas(nothing)[name]
    x, bias, residual, gamma, beta = inputs(torch.float32)
    residual = residual if "linear" in name else residual[:0]
    output = operation(x[:0], bias, residual, gamma, beta)
    assert output.shape == (0, len(residual) if "linear" in name else FEATURES)
    output.sum().backward()
    assert not any(tensor.grad.any() for tensor in (bias, gamma, beta) if tensor.grad is not None)


@pytest.mark.usefixtures("implementation")
def test_inputs_are_left_alone():
    for name in NAMES:
        operation, _ = formulas(here())[name]
        tensors = inputs(torch.float32)
        before = [tensor.detach().clone() for tensor in tensors]
        results(operation, tensors)
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))
