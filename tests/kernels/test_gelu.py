"""bias + GELU on the CPU by the GPU's sources."""

import pytest
import torch
from references import TOLERANCES, assert_close, exact


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("num_tokens", "width"), [(1, 8), (37, 136), (600, 1032), (0, 64)])
def test_values_and_gradients(kernels, num_tokens, width, dtype):
    torch.manual_seed(width)
    x = (4 * torch.randn(num_tokens, width)).to(dtype)
    bias, grad = torch.randn(width).to(dtype), torch.randn(num_tokens, width).to(dtype)
    out = kernels.gelu(x, bias)
    grad_x, again, in_place = torch.empty_like(x), torch.empty_like(x), grad.clone()
    grad_bias = kernels.gelu_backward(grad, x, bias, grad_x, again)
    assert torch.equal(kernels.gelu_backward(in_place, x, bias, in_place), grad_bias)
    assert torch.equal(in_place, grad_x)
    leaf, leaf_bias = exact(x, bias)
    expected = torch.nn.functional.gelu(leaf + leaf_bias)
    expected.backward(grad.double())
    assert_close(out, expected.detach())
    assert torch.equal(again, out)
    assert_close(grad_x, leaf.grad)
    assert_close(grad_bias, leaf_bias.grad)


def test_offsets_past_2_to_the_31(compiled):
    """The last part of so many tokens that their offsets pass 2^31; only its blocks run, bases are faked."""
    width, num_tokens = 1032, 2**21 + 64
    num_parts = -(-num_tokens // (tokens_a_part := -(-num_tokens // 2048)))
    first = (num_parts - 1) * tokens_a_part
    torch.manual_seed(0)
    x, bias = torch.randn(num_tokens - first, width).bfloat16(), torch.randn(width).bfloat16()
    out = torch.zeros_like(x)
    far = [tensor.data_ptr() - first * width * tensor.element_size() for tensor in (out, x)]
    compiled.begin_at_block((num_parts - 1) * 2)  # two blocks have the features
    compiled._call("gelu", far[0], far[1], bias, num_tokens, width, 1)
    compiled.begin_at_block(0)
    assert first * width > 2**31
    assert torch.equal(out, compiled.gelu(x, bias))


def test_gradients_past_2_to_the_31(compiled):
    """The same backward, where parts are larger."""
    width, num_tokens = 1032, 2**21 + 64
    num_parts = -(-num_tokens // (tokens_a_part := -(-num_tokens // 512)))
    first = (num_parts - 1) * tokens_a_part
    torch.manual_seed(0)
    x, grad = (torch.randn(num_tokens - first, width).bfloat16() for _ in range(2))
    bias, grad_bias = torch.randn(width).bfloat16(), torch.empty(width).bfloat16()
    grad_x, out, expected = torch.zeros_like(x), torch.zeros_like(x), torch.empty_like(x)
    part_sums = torch.zeros(num_parts, width)

    def far(tensor):
        return tensor.data_ptr() - first * width * tensor.element_size()

    compiled.begin_at_block((num_parts - 1) * 2)
    outputs = (far(grad_x), grad_bias, far(out), part_sums)
    compiled._call("gelu_backward", *outputs, far(grad), far(x), bias, num_tokens, width, 1)
    compiled.begin_at_block(0)
    expected_bias = compiled.gelu_backward(grad, x, bias, expected)
    assert torch.equal(grad_x, expected)
    assert torch.equal(out, compiled.gelu(x, bias))
    assert_close(part_sums[-1].bfloat16(), expected_bias)


def test_wrong_arguments_are_named(compiled):
    with pytest.raises(ValueError, match=r"gelu: bias must be of shape \[8\], not \[9\]"):
        compiled.gelu(torch.zeros(2, 8), torch.zeros(9))
    with pytest.raises(ValueError, match="features must be a multiple of 8, not 9"):
        compiled.gelu(torch.zeros(2, 9), torch.zeros(9))
