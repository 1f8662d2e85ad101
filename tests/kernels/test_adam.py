"""Adam on the CPU by the GPU's sources, and the optimizer around it."""

import copy
import math

import pytest
import torch
from references import TOLERANCES

from deltalm_ds.ops import FusedAdamW
from deltalm_ds.ops.cuda import operations
from deltalm_ds.ops.cuda.kernels import AdamTensors, AdamUpdate

UPDATE = AdamUpdate(0.9, 0.98, 3e-3 / (1 - 0.9**3), 1 - 3e-3 * 0.1, math.sqrt(1 - 0.98**3), 1e-8)
SIZES = (1, 7, 8, 1000, 16384, 16391)
"""The last is longer than a block's part."""


@pytest.fixture
def on_kernels(compiled, monkeypatch):
    monkeypatch.setitem(operations._kernels, "cpu", compiled)


def made(dtype, rounded_dtype):
    torch.manual_seed(0)
    return [
        AdamTensors(
            weight=torch.randn(size),
            first_moment=torch.randn(size),
            second_moment=torch.rand(size),
            grad=torch.randn(size).to(dtype),
            rounded_weight=None if rounded_dtype is None else torch.empty(size, dtype=rounded_dtype),
        )
        for size in SIZES
    ]


def expected(tensors, grad_scale):
    """weight, first_moment and second_moment after UPDATE, fp64."""
    w, m, v, g = (tensor.double() for tensor in tensors[:4])
    beta1, beta2, step_size, decay, root, epsilon = UPDATE
    g = g * grad_scale
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return w * decay - step_size * m / (v.sqrt() / root + epsilon), m, v


@pytest.mark.parametrize("rounded_dtype", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_one_step_of_many_tensors(kernels, dtype, rounded_dtype):
    found = made(dtype, rounded_dtype)
    references = [expected(tensors, 0.37) for tensors in found]
    kernels.adam(found, UPDATE, torch.tensor(0.37))
    for tensors, reference in zip(found, references, strict=True):
        for one, other in zip(tensors[:3], reference, strict=True):
            torch.testing.assert_close(one, other.float(), rtol=2e-6, atol=2e-7)
        if rounded_dtype is not None:
            assert torch.equal(tensors.rounded_weight, tensors.weight.to(rounded_dtype))


def test_offsets_past_2_to_the_31(compiled):
    """The last chunk of a tensor of more than 2^31 numbers, whose base is faked."""
    first, size = 2**31 + 2**14, 1000
    torch.manual_seed(0)
    near, far = ([torch.rand(size) for _ in range(4)] for _ in range(2))
    for one, other in zip(near, far, strict=True):
        other.copy_(one)
    compiled.adam([AdamTensors(*near, None)], UPDATE, None)
    table = torch.tensor([*(tensor.data_ptr() - 4 * first for tensor in far), 0, first + size])
    compiled._call("adam", table, torch.tensor([0, first]), 1, None, *UPDATE, 0, 0)
    assert all(torch.equal(one, other) for one, other in zip(near, far, strict=True))


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_scale_that_is_not_finite_changes_nothing(compiled, scale):
    found = made(torch.bfloat16, torch.bfloat16)
    before = copy.deepcopy(found)
    compiled.adam(found, UPDATE, torch.tensor(scale))
    for tensors, untouched in zip(found, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors[:3], untouched[:3], strict=True))


def test_wrong_arguments_are_named(compiled):
    good = made(torch.bfloat16, torch.bfloat16)
    for changes, words in (
        ({"weight": good[3].weight.bfloat16()}, "adam: weight must be torch.float32"),
        ({"grad": good[3].grad[1:]}, r"grad must be of shape \[1000\], not \[999\]"),
        ({"grad": good[3].grad.float()}, "grad must be torch.bfloat16, not torch.float32"),
        ({"rounded_weight": None}, "rounded_weight must be given for all tensors or for none"),
    ):
        with pytest.raises(ValueError, match=words):
            compiled.adam([*good, good[3]._replace(**changes)], UPDATE, None)
    with pytest.raises(ValueError, match="grad_scale must be of shape"):
        compiled.adam(good, UPDATE, torch.ones(2))


def made_parameters(dtype=torch.float32):
    torch.manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape).to(dtype)) for shape in ((5, 7), (64, 24), (3,))]


def groups(parameters):
    return [{"params": parameters[:2], "weight_decay": 0.3}, {"params": parameters[2:], "weight_decay": 0.0}]


SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-7}


def train(optimizer, parameters, steps):
    """Steps of gradients that depend on the step alone; one parameter has none every other step."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            if number == 1 and step % 2:
                parameter.grad = None
        optimizer.step()


@pytest.mark.usefixtures("on_kernels")
def test_the_optimizer_is_torchs():
    ours, theirs = made_parameters(), made_parameters()
    train(FusedAdamW(groups(ours), **SETTINGS), ours, range(20))
    train(torch.optim.AdamW(groups(theirs), **SETTINGS), theirs, range(20))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("on_kernels")
def test_states_go_to_and_from_torchs():
    parameters, others = made_parameters(), made_parameters()
    ours = FusedAdamW(groups(parameters), **SETTINGS)
    theirs = torch.optim.AdamW(groups(others), **SETTINGS)
    train(ours, parameters, range(5))
    theirs.load_state_dict(
        {**copy.deepcopy(ours.state_dict()), "param_groups": theirs.state_dict()["param_groups"]}
    )
    for parameter, other in zip(parameters, others, strict=True):
        other.data.copy_(parameter)
    train(theirs, others, range(5, 9))
    train(ours, parameters, range(5, 9))
    for one, other in zip(parameters, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_of_16_bits_are_the_rounding_of_a_master(dtype):
    halves, masters = made_parameters(dtype), [p.detach().float() for p in made_parameters(dtype)]
    masters = [torch.nn.Parameter(master) for master in masters]
    optimizer, reference = FusedAdamW(groups(halves), **SETTINGS), FusedAdamW(groups(masters), **SETTINGS)
    for step in range(20):
        train(optimizer, halves, [step])
        for half, master in zip(halves, masters, strict=True):
            master.grad = None if half.grad is None else half.grad.float()
        reference.step()
    for half, master in zip(halves, masters, strict=True):
        assert torch.equal(half, master.to(dtype))
        assert torch.equal(optimizer.state[half]["master"], master)


@pytest.mark.usefixtures("on_kernels")
def test_a_loaded_optimizer_goes_on_to_the_last_bit():
    whole, first, second = (made_parameters(torch.bfloat16) for _ in range(3))
    train(FusedAdamW(groups(whole), **SETTINGS), whole, range(8))
    optimizer = FusedAdamW(groups(first), **SETTINGS)
    train(optimizer, first, range(4))
    for parameter, trained in zip(second, first, strict=True):
        parameter.data.copy_(trained)
    resumed = FusedAdamW(groups(second), **SETTINGS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(resumed, second, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))


@pytest.mark.usefixtures("on_kernels")
def test_gradients_that_are_parts_of_a_larger_tensor():
    ours, theirs = (torch.nn.Parameter(torch.ones(9)) for _ in range(2))
    gradients = torch.randn(20)
    ours.grad = theirs.grad = gradients[1:10]
    FusedAdamW([ours]).step()
    torch.optim.AdamW([theirs]).step()
    torch.testing.assert_close(ours, theirs)
