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
    grad_x = grad.clone()
    grad_bias, again = kernels.gelu_backward(grad_x, x, bias)
    leaf, leaf_bias = exact(x, bias)
    expected = torch.nn.functional.gelu(leaf + leaf_bias)
    expected.backward(grad.double())
    assert_close(out, expected.detach())
    assert torch.equal(again, out)
    assert_close(grad_x, leaf.grad)
    assert_close(grad_bias, leaf_bias.grad)


def test_wrong_arguments_are_named(compiled):
    with pytest.raises(ValueError, match=r"gelu: bias must be of shape \[8\], not \[9\]"):
        compiled.gelu(torch.zeros(2, 8), torch.zeros(9))
    with pytest.raises(ValueError, match="features must be a multiple of 8, not 9"):
        compiled.gelu(torch.zeros(2, 9), torch.zeros(9))
