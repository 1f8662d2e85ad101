"""The kernels as torch's operators, and DeltaLM on them: gradients, tracing, compilation, choice."""

import json

import pytest
import torch
from references import made_dropout

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, PackedTokens
from deltalm_ds.ops import apply_dropout, products
from deltalm_ds.ops.cuda import choice, operations
from deltalm_ds.ops.native import kernels as native

CONFIG = DeltaLMConfig.preset(
    "tiny",
    width=128,
    feed_forward_width=256,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_blocks=1,
    vocabulary_rows=304,
    mask_id=200,
    first_sentinel_id=201,
)


@pytest.fixture
def on_kernels(compiled, monkeypatch):
    """CPU tensors go to the kernels."""
    monkeypatch.setitem(operations._kernels, "cpu", compiled)
    monkeypatch.setenv(choice.VARIABLE, "kernel")
    monkeypatch.setattr(choice, "_choices", {})


@pytest.fixture
def by_reference(monkeypatch):
    """A function that sends every operation to torch from then on."""

    def change():
        monkeypatch.setenv(choice.VARIABLE, "reference")
        choice._choices.clear()

    return change


def made_batch():
    """Source, decoder input and labels of three ragged samples, one label ignored."""
    torch.manual_seed(5)
    sources = [torch.randint(4, 200, (length,)) for length in (9, 70, 1)]
    targets = [torch.randint(4, 200, (length,)) for length in (6, 3, 12)]
    labels = torch.randint(4, 200, (21,))
    labels[4] = -100
    return PackedTokens.from_sequences(sources), PackedTokens.from_sequences(targets), labels


def run(model, state=None):
    """The loss and all gradients."""
    model.zero_grad(set_to_none=True)
    sums = model(*made_batch(), 0.1, "fairseq", state)
    sums[0].backward()
    return float(sums[0].detach()), [parameter.grad.clone() for parameter in model.parameters()]


def made_model(dtype, **changes):
    torch.manual_seed(1)
    return DeltaLM(DeltaLMConfig.from_dict({**CONFIG.to_dict(), **changes})).to(dtype)


def operator_calls():
    """Every operator with arguments that it takes."""
    heads = (2, 64)
    query, key, value = (torch.randn(7, *heads).bfloat16().requires_grad_() for _ in range(3))
    lengths = torch.tensor([0, 3, 3, 7], dtype=torch.int32)
    x, residual = (torch.randn(6, 16, requires_grad=True) for _ in range(2))
    bias, gamma, beta = (torch.randn(16, requires_grad=True) for _ in range(3))
    dropout = operations.dropout_arguments(made_dropout(6, 0.2))
    nothing = operations.dropout_arguments(None)
    weight, labels = torch.randn(24, 16, requires_grad=True), torch.tensor([0, 23, -100, 5, 6, 7])
    row_bias = torch.randn(24, requires_grad=True)
    ops = torch.ops.deltalm
    return {
        "attention": (ops.attention, (query, key, value, lengths, lengths, 4, 4, True)),
        "add_norm": (ops.add_norm, (x, bias, residual, gamma, beta, 1e-5, *dropout)),
        "add_norm without dropout": (ops.add_norm, (x, bias, residual, gamma, beta, 1e-5, *nothing)),
        "add_norm without norm": (ops.add_norm, (x, bias, residual, None, None, 0.0, *dropout)),
        "add_norm without both": (ops.add_norm, (x, bias, residual, None, None, 0.0, *nothing)),
        "gelu": (ops.gelu, (x, bias)),
        "gelu_linear": (ops.gelu_linear, (x, bias, weight)),
        "linear_cross_entropy": (
            ops.linear_cross_entropy,
            (x, weight, None, labels, 0.1, "uniform", True, True, False),
        ),
        "linear_cross_entropy with bias": (
            ops.linear_cross_entropy,
            (x, weight, row_bias, labels, 0.1, "uniform", True, True, True),
        ),
    }


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("name", operator_calls())
def test_operators_are_as_torch_wants_them(name):
    operator, arguments = operator_calls()[name]
    torch.library.opcheck(operator.default, arguments)


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("pre_layer_norm", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_the_model_is_the_same_on_kernels_and_references(by_reference, dtype, tolerance, pre_layer_norm):
    model = made_model(dtype, pre_layer_norm=pre_layer_norm)
    state = DropoutState(seed=3, step=8)
    loss, gradients = run(model, state)
    by_reference()
    expected, references = run(model, state)
    assert loss == pytest.approx(expected, rel=tolerance)
    largest = max(float(reference.float().norm()) for reference in references)
    for gradient, reference in zip(gradients, references, strict=True):
        error = (gradient.float() - reference.float()).norm()
        assert error <= tolerance * reference.float().norm() + tolerance * 0.02 * largest


@pytest.mark.usefixtures("on_kernels")
def test_the_model_compiles_in_one_graph(monkeypatch):
    # As on a GPU: without the CPU's own kernels and its choice of a dtype for products.
    monkeypatch.setattr(native, "support", lambda *tensors: False)
    monkeypatch.setattr(products, "cpu_has_matrix_unit", lambda: True)
    model = made_model(torch.bfloat16)
    expected, references = run(model, DropoutState(seed=3, step=8))
    choice.choose_kernels("cpu")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    loss, gradients = run(compiled, DropoutState(seed=3, step=8))
    assert loss == pytest.approx(expected, rel=1e-2)
    for gradient, reference in zip(gradients, references, strict=True):
        assert (gradient.float() - reference.float()).norm() <= 3e-2 * reference.float().norm() + 1e-3


@pytest.mark.usefixtures("on_kernels")
def test_kernels_are_called_where_they_are_chosen(monkeypatch, compiled):
    calls = []
    monkeypatch.setattr(compiled, "_call", lambda name, *_: calls.append(name))
    monkeypatch.setenv(choice.VARIABLE, "kernel,gelu=reference")
    run(made_model(torch.bfloat16))
    names = {"attention", "attention_backward", "add_norm", "add_norm_backward", "cross_entropy"}
    assert set(calls) == names


@pytest.mark.usefixtures("on_kernels")
@pytest.mark.parametrize("num_tokens", [0, 1, 6])
def test_dropout_alone_is_the_references(by_reference, num_tokens):
    x = torch.randn(num_tokens, 40).bfloat16().requires_grad_()
    dropout = made_dropout(num_tokens, 0.4)
    found, expected = [], []
    for results in (found, expected):
        out = apply_dropout(x, dropout)
        (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
        results += [out, grad]
        by_reference()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("attention=reference,gelu=kernel", {"attention": "reference", "gelu": "kernel"}),
        ("reference", dict.fromkeys(choice.OPERATIONS, "reference")),
    ],
)
def test_the_variable_decides_by_operation(text, found):
    assert choice.demands(text) == found


@pytest.mark.parametrize("text", ["attention", "flash=kernel", "gelu=fast", "=kernel"])
def test_what_the_variable_may_not_say_is_told(text):
    with pytest.raises(UserError, match="DELTALM_KERNELS"):
        choice.demands(text)


@pytest.fixture
def on_a_gpu(monkeypatch, compiled, tmp_path):
    """A function that says what was measured on this machine's GPU, which it pretends to have."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(choice, "_choices", {})
    monkeypatch.setattr(choice, "MEASURED", tmp_path / "measured.json")
    monkeypatch.setitem(operations._kernels, "cuda", compiled)

    def measured(content):
        choice.MEASURED.write_text(json.dumps(content))
        choice._choices.clear()

    return measured


def test_a_kernel_runs_by_default_where_it_was_measured_and_did_not_lose(on_a_gpu, monkeypatch):
    on_a_gpu({"A GPU": {"attention": 1.3, "gelu": 0.97, "adam": 1.0}, "Another": {"add_norm": 2.0}})
    chosen = {name for name in choice.OPERATIONS if choice.by_kernel(name, "cuda")}
    assert chosen == {"attention", "adam"}
    assert choice.description("cuda") == (
        "attention, adam by our kernels; add_norm, gelu, cross_entropy by torch"
    )
    monkeypatch.setenv(choice.VARIABLE, "attention=reference,gelu=kernel")
    choice.choose_kernels("cuda")
    assert {name for name in choice.OPERATIONS if choice.by_kernel(name, "cuda")} == {"gelu", "adam"}


def test_a_gpu_never_measured_runs_torch_and_says_so(on_a_gpu):
    on_a_gpu({"Another": {"add_norm": 2.0}})
    assert not any(choice.by_kernel(name, "cuda") for name in choice.OPERATIONS)
    assert "by torch; nothing was measured on this GPU: `make gpu`" in choice.description("cuda")


def test_a_demanded_kernel_that_is_not_there_is_an_error(on_a_gpu, monkeypatch):
    on_a_gpu({})
    monkeypatch.delitem(operations._kernels, "cuda")
    monkeypatch.setenv(choice.VARIABLE, "gelu=kernel")
    with pytest.raises(UserError, match="DELTALM_KERNELS demands the kernel for gelu"):
        choice.choose_kernels("cuda")


def test_an_operator_without_kernels_says_so():
    with pytest.raises(RuntimeError, match="there are no kernels for tensors on cpu"):
        torch.ops.deltalm.gelu(torch.zeros(2, 8), torch.zeros(8))


def test_the_committed_measurements_are_of_known_operations():
    for gpu, ratios in json.loads(choice.MEASURED.read_text()).items():
        assert gpu
        assert set(ratios) <= set(choice.OPERATIONS)


def test_everything_runs_by_torch_on_a_cpu_unless_told_otherwise(monkeypatch, compiled):
    monkeypatch.setitem(operations._kernels, "cpu", compiled)
    monkeypatch.setattr(choice, "_choices", {})
    assert not any(choice.by_kernel(operation, "cpu") for operation in choice.OPERATIONS)
