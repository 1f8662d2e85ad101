"""The kernels as operators of torch, `torch.ops.deltalm.*`: with shapes for tracing and with gradients.

`torch.compile` sees one node for each. They run on tensors of device types that `use` has given kernels.
Operators may not return an input, or one tensor twice: an empty tensor stands in place of such an output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from deltalm_ds.ops.cuda.kernels import Kernels
from deltalm_ds.ops.cuda.library import library
from deltalm_ds.ops.philox import Dropout

_kernels: dict[str, Kernels] = {}


def use(kernels: Kernels, device_type: str = "cuda") -> None:
    """Run the operators on tensors of this device type by `kernels`."""
    _kernels[device_type] = kernels


def has_kernels(device_type: str) -> bool:
    """Whether the operators run on such a device; GPUs' kernels are loaded when first asked for."""
    if device_type == "cuda" and device_type not in _kernels:
        loaded = library()
        if loaded is not None:
            use(Kernels(loaded))
    return device_type in _kernels


def kernels_of(tensor: Tensor) -> Kernels:
    """The kernels that run on the tensor's device; RuntimeError where there are none."""
    if not has_kernels(tensor.device.type):
        raise RuntimeError(f"there are no kernels for tensors on {tensor.device}")
    return _kernels[tensor.device.type]


# Attention


@custom_op(
    "deltalm::attention",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor cumulative_lengths_q,"
    " Tensor cumulative_lengths_k, SymInt max_length_q, SymInt max_length_k, bool causal)"
    " -> (Tensor, Tensor)",
)
def _attention(query: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    return kernels_of(query).attention(query, *arguments)


@_attention.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[1], query.shape[0], dtype=torch.float32)


@custom_op(
    "deltalm::attention_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, Tensor log_sums,"
    " Tensor cumulative_lengths_q, Tensor cumulative_lengths_k, SymInt max_length_q, SymInt max_length_k,"
    " bool causal) -> (Tensor, Tensor, Tensor)",
)
def _attention_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return kernels_of(grad).attention_backward(grad, *arguments)


@_attention_backward.register_fake
def _(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, lengths_q, lengths_k, *ctx.settings = inputs
    ctx.save_for_backward(query, key, value, *output, lengths_q, lengths_k)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _attention_gradients(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.deltalm.attention_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.settings)
    return *gradients, None, None, None, None, None


_attention.register_autograd(_attention_gradients, setup_context=_keep_attention)


# Dropout, residual connection and LayerNorm

_DROPOUT = (
    "float probability, SymInt seed, SymInt step, int layer, int site,"
    " Tensor? sample_of_token, Tensor? index_of_token"
)


def dropout_arguments(dropout: Dropout | None) -> tuple[Any, ...]:
    """A dropout as operators take it."""
    if dropout is None:
        return 0.0, 0, 0, 0, 0, None, None
    return (
        *(dropout.probability, dropout.seed, dropout.step, dropout.layer, dropout.site),
        *(dropout.sample_of_token, dropout.index_of_token),
    )


def _dropout(probability: float, *arguments: Any) -> Dropout | None:
    return Dropout(probability, *arguments) if probability else None


def _nothing(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(0), x.new_empty(0), x.new_empty(0)


@custom_op(
    "deltalm::add_norm",
    mutates_args=(),
    schema=f"(Tensor x, Tensor bias, Tensor residual, Tensor? gamma, Tensor? beta, float epsilon, {_DROPOUT})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
def _add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    epsilon: float,
    *dropout: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = kernels_of(x).add_norm(x, bias, residual, gamma, beta, epsilon, _dropout(*dropout))
    return found if gamma is not None else (found[0], *_nothing(x))


@_add_norm.register_fake
def _(
    x: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if gamma is None:
        return torch.empty_like(x), *_nothing(x)
    mean, rstd = (x.new_empty(x.shape[0], dtype=torch.float32) for _ in range(2))
    return torch.empty_like(x), torch.empty_like(x), mean, rstd


@custom_op(
    "deltalm::add_norm_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor? total, Tensor? mean, Tensor? rstd, Tensor? gamma, {_DROPOUT})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _add_norm_backward(
    grad: Tensor,
    total: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor | None,
    gamma: Tensor | None,
    *dropout: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = kernels_of(grad).add_norm_backward(grad, total, mean, rstd, gamma, _dropout(*dropout))
    grad_x, grad_bias, grad_total, grad_gamma, grad_beta = found
    nothing = _nothing(grad)
    if gamma is None:
        return grad_x if dropout[0] else grad.new_empty(0), grad_bias, *nothing
    assert grad_gamma is not None
    assert grad_beta is not None
    return grad_x if dropout[0] else nothing[0], grad_bias, grad_total, grad_gamma, grad_beta


@_add_norm_backward.register_fake
def _(
    grad: Tensor,
    total: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor | None,
    gamma: Tensor | None,
    probability: float,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x = torch.empty_like(grad) if probability else grad.new_empty(0)
    if gamma is None:
        return grad_x, grad.new_empty(grad.shape[1]), *_nothing(grad)
    sums = [grad.new_empty(grad.shape[1]) for _ in range(3)]
    return grad_x, sums[0], torch.empty_like(grad), sums[1], sums[2]


def _keep_add_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    gamma, (ctx.probability, *ctx.counters, sample, index) = inputs[3], inputs[6:]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*(output[1:] if gamma is not None else (None, None, None)), gamma, sample, index)
    ctx.set_materialize_grads(False)


def _add_norm_gradients(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    total, mean, rstd, gamma, sample, index = ctx.saved_tensors
    grad = grad.contiguous()
    grad_x, grad_bias, grad_total, grad_gamma, grad_beta = torch.ops.deltalm.add_norm_backward(
        grad, total, mean, rstd, gamma, ctx.probability, *ctx.counters, sample, index
    )
    grad_total = grad if gamma is None else grad_total
    grad_x = grad_x if ctx.probability else grad_total
    of_norm = (None, None) if gamma is None else (grad_gamma, grad_beta)
    return grad_x, grad_bias, grad_total, *of_norm, *(None,) * 8


_add_norm.register_autograd(_add_norm_gradients, setup_context=_keep_add_norm)


# GELU, and the linear layer behind it


@custom_op("deltalm::gelu", mutates_args=(), schema="(Tensor x, Tensor bias) -> Tensor")
def _gelu(x: Tensor, bias: Tensor) -> Tensor:
    return kernels_of(x).gelu(x, bias)


@_gelu.register_fake
def _(x: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x)


@custom_op(
    "deltalm::gelu_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor bias) -> (Tensor, Tensor)",
)
def _gelu_backward(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    grad_x = torch.empty_like(grad)
    return grad_x, kernels_of(x).gelu_backward(grad, x, bias, grad_x)


@_gelu_backward.register_fake
def _(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(bias)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gelu_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.deltalm.gelu_backward(grad.contiguous(), *ctx.saved_tensors)


_gelu.register_autograd(_gelu_gradients, setup_context=_keep_inputs)


@custom_op("deltalm::gelu_linear", mutates_args=(), schema="(Tensor x, Tensor bias, Tensor weight) -> Tensor")
def _gelu_linear(x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    return kernels_of(x).gelu(x, bias) @ weight.t()


@_gelu_linear.register_fake
def _(x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@custom_op(
    "deltalm::gelu_linear_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor x, Tensor bias, Tensor weight) -> (Tensor, Tensor, Tensor)",
)
def _gelu_linear_backward(
    grad: Tensor, x: Tensor, bias: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, activated = grad @ weight, torch.empty_like(x)
    grad_bias = kernels_of(x).gelu_backward(grad_x, x, bias, grad_x, activated)
    return grad_x, grad_bias, grad.t() @ activated


@_gelu_linear_backward.register_fake
def _(grad: Tensor, x: Tensor, bias: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(bias), torch.empty_like(weight)


def _gelu_linear_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.deltalm.gelu_linear_backward(grad.contiguous(), *ctx.saved_tensors)


_gelu_linear.register_autograd(_gelu_linear_gradients, setup_context=_keep_inputs)


# Softmax and cross-entropy of a chunk of logits


@custom_op(
    "deltalm::cross_entropy",
    mutates_args=("logits",),
    schema="(Tensor(a!) logits, Tensor labels, float on_target, float on_all, bool with_gradient)"
    " -> (Tensor, Tensor)",
)
def _cross_entropy(logits: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    return kernels_of(logits).cross_entropy(logits, *arguments)


@_cross_entropy.register_fake
def _(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    nll, loss = (logits.new_empty(logits.shape[0], dtype=torch.float32) for _ in range(2))
    return nll, loss
