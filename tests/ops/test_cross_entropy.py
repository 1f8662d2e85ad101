"""The chunked loss against torch's and against the formulas, with logits written out."""

import pytest
import torch
import torch.nn.functional as F

from deltalm_ds.ops import IGNORE, cross_entropy, linear_cross_entropy

TOKENS, WIDTH, ROWS = 17, 12, 50


@pytest.fixture(params=[1, 5, TOKENS], ids=lambda tokens: f"{tokens} tokens a chunk")
def chunked(request, monkeypatch):
    monkeypatch.setitem(cross_entropy._CHUNK_BYTES, "cpu", request.param * ROWS * 4)
    monkeypatch.setattr(cross_entropy, "_ROWS_COPIED", 7)
    monkeypatch.setitem(cross_entropy._BLOCK_BYTES, "cpu", 16 * TOKENS * 4)


def inputs(dtype=torch.float32, ignored=()):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(ROWS, WIDTH, generator=generator).to(dtype).requires_grad_()
    target = torch.randint(ROWS, (TOKENS,), generator=generator)
    target[list(ignored)] = IGNORE
    return hidden, weight, target


def written_out(hidden, weight, target, smoothing, form):
    """Loss and per-token negative log-likelihood from full logits, in the dtype of the input."""
    log_probabilities = (hidden @ weight.t()).log_softmax(-1)
    real = target != IGNORE
    nll = -log_probabilities.gather(1, target.clamp(min=0)[:, None]).squeeze(1)
    total = -log_probabilities.sum(1)
    if form == "fairseq":
        share = smoothing / (ROWS - 1)
        loss = (1 - smoothing) * nll + share * (total - nll)
    else:
        loss = (1 - smoothing) * nll + smoothing / ROWS * total
    return (loss * real).sum(), nll * real


@pytest.mark.usefixtures("chunked", "implementation")
@pytest.mark.parametrize("form", ["fairseq", "uniform"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [(), (0, 3, 4, 16)], ids=["all real", "some ignored"])
@pytest.mark.parametrize("scale", [1.0, -2.5])
def test_formula(form, smoothing, ignored, scale):
    hidden, weight, target = inputs(torch.float32, ignored)
    sums = linear_cross_entropy(hidden, weight, target, smoothing, form)
    ours = torch.autograd.grad(sums.loss * scale, (hidden, weight))
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    loss, nll = written_out(*exact, target, smoothing, form)
    expected = torch.autograd.grad(loss * scale, exact)
    torch.testing.assert_close(sums.loss.double(), loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(sums.negative_log_likelihood.double(), nll.sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(sums.token_negative_log_likelihood.double(), nll, rtol=1e-5, atol=1e-6)
    for mine, reference in zip(ours, expected, strict=True):
        assert (mine.double() - reference).norm() < 1e-6 * reference.norm()


@pytest.mark.usefixtures("chunked", "implementation")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_uniform_form_is_torchs(smoothing):
    hidden, weight, target = inputs(ignored=(2,))
    ours = linear_cross_entropy(hidden, weight, target, smoothing, "uniform").loss
    theirs = F.cross_entropy(
        F.linear(hidden, weight), target, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    for mine, reference in zip(
        torch.autograd.grad(ours, (hidden, weight)),
        torch.autograd.grad(theirs, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("chunked", "implementation")
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bf16_within_its_rounding(smoothing):
    hidden, weight, target = inputs(torch.bfloat16, ignored=(5, 6))
    sums = linear_cross_entropy(hidden, weight, target, smoothing)
    assert sums.loss.dtype == sums.token_negative_log_likelihood.dtype == torch.float32
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    loss, _ = written_out(*exact, target, smoothing, "fairseq")
    torch.testing.assert_close(sums.loss.double(), loss, rtol=5e-3, atol=0)
    ours = torch.autograd.grad(sums.loss, (hidden, weight))
    for mine, reference in zip(ours, torch.autograd.grad(loss, exact), strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.double() - reference).norm() < 1e-2 * reference.norm()


@pytest.mark.usefixtures("implementation")
def test_bf16_weight_gradient_is_summed_in_fp32(monkeypatch):
    # 512 equal tokens, one a chunk: a bf16 sum would stop growing after 256 of them.
    monkeypatch.setitem(cross_entropy._CHUNK_BYTES, "cpu", 1)
    hidden = torch.ones(512, 8, dtype=torch.bfloat16)
    weight = torch.zeros(4, 8, dtype=torch.bfloat16, requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.zeros(512, dtype=torch.int64)).loss
    (gradient,) = torch.autograd.grad(loss, weight)
    assert torch.equal(gradient[0], torch.full((8,), -384.0, dtype=torch.bfloat16))
    assert torch.equal(gradient[1:], torch.full((3, 8), 128.0, dtype=torch.bfloat16))


@pytest.mark.usefixtures("chunked", "implementation")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_bias_of_the_rows(dtype, smoothing):
    hidden, weight, target = inputs(dtype, ignored=(0, 9))
    bias = torch.linspace(-2, 2, ROWS).to(dtype).requires_grad_()
    sums = linear_cross_entropy(hidden, weight, target, smoothing, bias=bias)
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight, bias)]
    logits = F.linear(*exact)
    one_hot = torch.eye(ROWS, dtype=torch.float64)
    loss, nll = written_out(logits, one_hot, target, smoothing, "fairseq")
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(sums.loss.double(), loss, rtol=tolerance, atol=0)
    torch.testing.assert_close(sums.negative_log_likelihood.double(), nll.sum(), rtol=tolerance, atol=0)
    ours = torch.autograd.grad(sums.loss, (hidden, weight, bias))
    for mine, reference in zip(ours, torch.autograd.grad(loss, exact), strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - reference).norm() < tolerance * reference.norm()


def test_a_bias_without_its_gradient():
    hidden, weight, target = inputs()
    bias = torch.linspace(-2, 2, ROWS)
    with_bias = linear_cross_entropy(hidden, weight, target, bias=bias)
    assert with_bias.loss != linear_cross_entropy(hidden, weight, target).loss
    with_bias.loss.backward()
    assert weight.grad is not None
    assert bias.grad is None


@pytest.mark.usefixtures("implementation")
def test_everything_ignored():
    hidden, weight, target = inputs(ignored=range(TOKENS))
    sums = linear_cross_entropy(hidden, weight, target, 0.1)
    assert sums.loss == sums.negative_log_likelihood == 0
    assert not sums.token_negative_log_likelihood.any()
    sums.loss.backward()
    assert hidden.grad.shape == hidden.shape
    assert weight.grad.shape == weight.shape
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_ignored_tokens_are_never_read():
    hidden, weight, target = inputs(ignored=(0,))
    with torch.no_grad():
        hidden[0] = float("nan")
    loss = linear_cross_entropy(hidden, weight, target, 0.1).loss
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad.isfinite().all()
    assert weight.grad.isfinite().all()


@pytest.mark.usefixtures("implementation")
def test_no_tokens():
    hidden, weight, _ = inputs()
    sums = linear_cross_entropy(hidden[:0], weight, torch.zeros(0, dtype=torch.int64))
    sums.loss.backward()
    assert sums.loss == 0
    assert not weight.grad.any()


@pytest.mark.usefixtures("implementation")
def test_without_gradients():
    hidden, weight, target = inputs(ignored=(1,))
    expected = linear_cross_entropy(hidden, weight, target, 0.1)
    with torch.no_grad():
        sums = linear_cross_entropy(hidden, weight, target, 0.1)
    assert not sums.loss.requires_grad
    torch.testing.assert_close(sums.loss, expected.loss.detach())
    torch.testing.assert_close(sums.token_negative_log_likelihood, expected.token_negative_log_likelihood)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_one_side_frozen(frozen):
    hidden, weight, target = inputs()
    expected = dict(
        zip(
            ("hidden", "weight"),
            torch.autograd.grad(linear_cross_entropy(hidden, weight, target).loss, (hidden, weight)),
            strict=True,
        )
    )
    tensors = {"hidden": hidden, "weight": weight}
    tensors[frozen].requires_grad_(False)
    linear_cross_entropy(hidden, weight, target).loss.backward()
    assert tensors.pop(frozen).grad is None
    ((name, tensor),) = tensors.items()
    torch.testing.assert_close(tensor.grad, expected[name])


def test_only_the_loss_has_a_gradient():
    sums = linear_cross_entropy(*inputs())
    assert sums.loss.requires_grad
    assert not sums.token_negative_log_likelihood.requires_grad
    assert not sums.negative_log_likelihood.requires_grad


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_rows_and_wide_logits(dtype):
    # More rows than a kernel works on at once; logits from -300 to 300, with the largest late in the row.
    rows = 9001
    hidden = torch.ones(3, 1, dtype=dtype, requires_grad=True)
    weight = torch.linspace(-300, 300, rows)[:, None].to(dtype).requires_grad_()
    target = torch.tensor([rows - 1, 4096, 0])
    sums = linear_cross_entropy(hidden, weight, target, 0.1)
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    log_probabilities = (exact[0] @ exact[1].t()).log_softmax(-1)
    nll = -log_probabilities.gather(1, target[:, None]).squeeze(1)
    loss = (0.9 * nll + 0.1 / (rows - 1) * (-log_probabilities.sum(1) - nll)).sum()
    torch.testing.assert_close(sums.token_negative_log_likelihood.double(), nll, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sums.loss.double(), loss, rtol=1e-5, atol=0)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for mine, reference in zip(
        torch.autograd.grad(sums.loss, (hidden, weight)), torch.autograd.grad(loss, exact), strict=True
    ):
        assert (mine.double() - reference).norm() < tolerance * reference.norm()


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_number_reaches_the_loss(bad):
    hidden, weight, target = inputs()
    with torch.no_grad():
        weight[7, 3] = bad
    loss = linear_cross_entropy(hidden, weight, target).loss
    assert not loss.isfinite()
    assert not torch.autograd.grad(loss, hidden)[0].isfinite().all()
