"""The C kernels: when they are used, and that threads change no bit."""

import pytest
import torch

from deltalm_ds import ops
from deltalm_ds.ops import Dropout, linear_cross_entropy
from deltalm_ds.ops.native import kernels
from deltalm_ds.ops.native.library import library

needs_compiler = pytest.mark.skipif(library() is None, reason="no C compiler here")


def test_without_a_compiler_torch_takes_over(monkeypatch):
    library.cache_clear()
    monkeypatch.setenv("PATH", "")
    try:
        assert not kernels.support(torch.zeros(1))
        x = torch.ones(2, 8)
        assert torch.equal(ops.dropout_add(x, torch.zeros(8), x, None), 2 * x)
    finally:
        library.cache_clear()


@needs_compiler
def test_which_tensors_are_taken():
    single, half = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    assert kernels.support(single, None, single)
    assert kernels.support(half)
    assert not kernels.support(single, half)
    assert not kernels.support(single.double())
    assert not kernels.support(single.to("meta"))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype):
    torch.manual_seed(0)
    tokens, features = 300, 48
    x, residual = torch.randn(2, tokens, features).to(dtype)
    bias, gamma, beta = torch.randn(3, features).to(dtype)
    dropout = Dropout(0.3, 1, 2, 3, 4, torch.arange(tokens), torch.arange(tokens))
    target = torch.randint(features, (tokens,))

    def results():
        inputs = [tensor.clone().requires_grad_() for tensor in (x, bias, residual, gamma, beta)]
        out = ops.dropout_add_layer_norm(*inputs, dropout, 1e-5)
        out = ops.apply_dropout(ops.bias_gelu(out, inputs[1]), dropout)
        loss = linear_cross_entropy(out, torch.eye(features, dtype=dtype), target, 0.1).loss
        return [loss, *torch.autograd.grad(loss, inputs)]

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results()
        torch.set_num_threads(3)
        three = results()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, second) for first, second in zip(one, three, strict=True))
