"""Softmax and cross-entropy over a chunk of logits, on the CPU by the GPU's sources."""

import pytest
import torch
from references import TOLERANCES, assert_close, exact

from deltalm_ds.ops.cross_entropy import _loss_weights

FORMS = {"none": (0.0, "fairseq"), "fairseq's": (0.1, "fairseq"), "uniform": (0.1, "uniform")}


def check(kernels, num_tokens, num_classes, dtype, smoothing=(0.1, "fairseq"), spread=3.0):
    torch.manual_seed(num_classes)
    on_target, on_all = _loss_weights(*smoothing, num_classes)
    logits = (spread * torch.randn(num_tokens, num_classes)).to(dtype)
    labels = torch.randint(0, num_classes, (num_tokens,))
    labels[:1], labels[1:2] = 0, num_classes - 1
    (leaf,) = exact(logits)
    nlls = -leaf.log_softmax(-1)
    nll = nlls.gather(1, labels[:, None])[:, 0]
    loss = on_target * nll + on_all * nlls.sum(-1)
    loss.sum().backward()
    untouched = logits.clone()
    found = kernels.cross_entropy(logits, labels, on_target, on_all, with_gradient=False)
    assert torch.equal(logits, untouched)
    again = kernels.cross_entropy(logits, labels, on_target, on_all, with_gradient=True)
    assert torch.equal(torch.stack(found), torch.stack(again))
    assert_close(found[0], nll.detach())
    assert_close(found[1], loss.detach())
    assert_close(logits, leaf.grad)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("smoothing", FORMS.values(), ids=FORMS)
def test_values_and_gradients(kernels, smoothing, dtype):
    check(kernels, 5, 1208, dtype, smoothing)


def test_fewer_classes_than_threads(kernels):
    check(kernels, 3, 8, torch.bfloat16)


def test_the_vocabulary_of_xlm_r(compiled):
    check(compiled, 2, 250_104, torch.bfloat16)


def test_logits_far_apart(compiled):
    check(compiled, 4, 1024, torch.float32, spread=60.0)


def test_offsets_past_2_to_the_31(compiled):
    """The last of so many tokens that their rows begin past 2^31; only their blocks run, bases are faked."""
    num_classes, near = 250_104, 2
    first = 2**31 // num_classes + 1
    torch.manual_seed(0)
    logits, labels = torch.randn(near, num_classes).bfloat16(), torch.tensor([5, 250_103])
    expected_logits = logits.clone()
    expected = compiled.cross_entropy(expected_logits, labels, 1.0, 0.0, with_gradient=True)
    nll, loss = torch.zeros(2, near)
    tensors = ((logits, num_classes), (nll, 1), (loss, 1), (labels, 1))
    far = [tensor.data_ptr() - first * row * tensor.element_size() for tensor, row in tensors]
    compiled.begin_at_block(first)
    compiled._call("cross_entropy", *far, 1.0, 0.0, first + near, num_classes, 1, 1)
    compiled.begin_at_block(0)
    assert torch.equal(logits, expected_logits)
    assert torch.equal(torch.stack([nll, loss]), torch.stack(expected))


def test_no_tokens_and_wrong_arguments(compiled):
    nothing = torch.zeros(0, 8)
    nll, loss = compiled.cross_entropy(
        nothing, torch.zeros(0, dtype=torch.int64), 1.0, 0.0, with_gradient=True
    )
    assert len(nll) == len(loss) == 0
    with pytest.raises(ValueError, match="classes must be a multiple of 8, not 9"):
        compiled.cross_entropy(torch.zeros(2, 9), torch.zeros(2, dtype=torch.int64), 1.0, 0.0, True)
    with pytest.raises(ValueError, match=r"labels must be torch\.int64"):
        compiled.cross_entropy(torch.zeros(2, 8), torch.zeros(2, dtype=torch.int32), 1.0, 0.0, True)
