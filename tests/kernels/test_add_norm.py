"""Dropout + add + LayerNorm on the CPU by the GPU's sources."""

import pytest
import torch
from references import TOLERANCES, add_norm, assert_close, exact, made_dropout

from deltalm_ds.ops.native import kernels as native

EPSILON = 1e-5


def check(kernels, num_tokens, width, dtype, probability, with_norm):
    torch.manual_seed(num_tokens + width)
    x, residual, grad = (torch.randn(num_tokens, width).to(dtype) for _ in range(3))
    bias, gamma, beta = (torch.randn(width).to(dtype) for _ in range(3))
    if not with_norm:
        gamma = beta = None
    dropout = made_dropout(num_tokens, probability)
    out, total, mean, rstd = kernels.add_norm(x, bias, residual, gamma, beta, EPSILON, dropout)
    found = kernels.add_norm_backward(grad, total, mean, rstd, gamma, dropout)

    leaves = exact(*(tensor for tensor in (x, bias, residual, gamma, beta) if tensor is not None))
    expected = add_norm(*leaves, *([] if with_norm else [None, None]), EPSILON, dropout)
    expected.backward(grad.double())
    assert_close(out, expected.detach(), name="out")
    names = ("x", "bias", "residual", "gamma", "beta")
    for name, gradient, leaf in zip(names, found, leaves, strict=False):
        # The sum was rounded before its statistics were taken, and the gradient knows of it.
        assert gradient.dtype == dtype
        assert_close(gradient, leaf.grad, name=name)
    return out, total, *(gradient for gradient in found if gradient is not None)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("num_tokens", "width"), [(1, 8), (37, 136), (70, 768), (9, 1000), (5, 1024)])
def test_values_and_gradients(kernels, num_tokens, width, dtype):
    check(kernels, num_tokens, width, dtype, probability=0.1, with_norm=True)


@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_with_and_without_dropout_and_layer_norm(kernels, probability, with_norm):
    check(kernels, 21, 264, torch.float16, probability, with_norm)


def test_no_tokens(compiled):
    found = check(compiled, 0, 64, torch.bfloat16, 0.1, with_norm=True)
    assert all(not gradient.count_nonzero() for gradient in found)


def test_equal_inputs_give_equal_bits(compiled):
    first = check(compiled, 600, 64, torch.bfloat16, 0.1, with_norm=True)
    compiled.shuffle_threads(3)
    second = check(compiled, 600, 64, torch.bfloat16, 0.1, with_norm=True)
    compiled.shuffle_threads(0)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_dropout_bits_are_the_references(kernels):
    """Those of the CPU's own kernel, which is tested against torch; the width ends within a Philox call."""
    dropout = made_dropout(50, 0.37)
    x = torch.ones(50, 200)
    nothing = torch.zeros(200)
    _, total, _, _ = kernels.add_norm(x, nothing, torch.zeros_like(x), None, None, 0.0, dropout)
    assert torch.equal(total != 0, native.keep_mask(dropout, 1, 0, 200)[:, 0])


def check_far_offsets(kernels):
    """The last tokens of so many that their offsets pass 2^31; only their blocks run."""
    width, num_near = 1024, 6
    first = 2**31 // width + 2  # a multiple of the four tokens of a block, less two
    first += -first % 4
    torch.manual_seed(0)
    x, residual = (torch.randn(num_near, width).bfloat16() for _ in range(2))
    bias, gamma, beta = (torch.randn(width).bfloat16() for _ in range(3))
    expected = kernels.add_norm(x, bias, residual, gamma, beta, EPSILON, None)
    out, total = torch.zeros_like(x), torch.zeros_like(x)
    mean, rstd = torch.zeros(2, num_near)

    def far(tensor):
        return (
            tensor.data_ptr() - first * (tensor.stride(0) if tensor.dim() == 2 else 1) * tensor.element_size()
        )

    kernels.begin_at_block(first // 4)
    outputs = (far(out), far(total), far(mean), far(rstd))
    inputs = (far(x), bias, far(residual), gamma, beta, EPSILON)
    kernels._call("add_norm", *outputs, *inputs, kernels.no_dropout, first + num_near, width, 1)
    kernels.begin_at_block(0)
    return (out, total, mean, rstd), expected


def test_offsets_past_2_to_the_31(compiled):
    found, expected = check_far_offsets(compiled)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_gradients_past_2_to_the_31(compiled):
    """The last part of the tokens alone; sums over parts are not made."""
    width, num_tokens = 1024, 2**21 + 64
    num_parts = -(-num_tokens // (tokens_a_part := -(-num_tokens // 512)))
    first = (num_parts - 1) * tokens_a_part
    torch.manual_seed(0)
    total, grad = (torch.randn(num_tokens - first, width).bfloat16() for _ in range(2))
    gamma, unused = torch.randn(width).bfloat16(), torch.empty(width).bfloat16()
    mean, rstd = torch.randn(len(total)), torch.rand(len(total))
    grad_total, part_sums = torch.zeros_like(total), torch.zeros(num_parts, 3, width)

    def far(tensor):
        return tensor.data_ptr() - first * (width if tensor.dim() == 2 else 1) * tensor.element_size()

    compiled.begin_at_block(num_parts - 1)
    compiled._call(
        *("add_norm_backward", far(grad_total), far(grad_total), unused, unused, unused, part_sums),
        *(far(grad), far(total), far(mean), far(rstd), gamma, compiled.no_dropout, num_tokens, width, 1),
    )
    compiled.begin_at_block(0)
    _, grad_bias, expected, *_ = compiled.add_norm_backward(grad, total, mean, rstd, gamma, None)
    assert torch.equal(grad_total, expected)
    assert_close(part_sums[-1, 0].bfloat16(), grad_bias)


def test_wrong_arguments_are_named(compiled):
    x, bias = torch.zeros(4, 16), torch.zeros(16)
    arguments = (x, bias, x, bias, bias, EPSILON, None)
    for place, value, words in (
        (0, torch.zeros(4, 12), "features must be a multiple of 8, not 12"),
        (0, torch.zeros(4, 4096), "features must be at most 1024, not 4096"),
        (1, torch.zeros(8), r"add_norm: bias must be of shape \[16\], not \[8\]"),
        (2, x.bfloat16(), "residual must be torch.float32, not torch.bfloat16"),
        (3, torch.zeros(17)[1:], "gamma must be aligned to 16 bytes"),
        (6, made_dropout(3, 0.1), r"dropout.sample_of_token must be of shape \[4\]"),
    ):
        changed = [value if number == place else given for number, given in enumerate(arguments)]
        with pytest.raises(ValueError, match=words):
            compiled.add_norm(*changed)
