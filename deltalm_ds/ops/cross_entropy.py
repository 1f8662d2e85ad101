"""Output projection and cross-entropy in one, over a chunk of tokens at a time.

A full table of logits would hold tokens x 250,104 numbers, most of the memory of a step. Here the gradient
is taken together with the loss, chunk by chunk, so that three products in all are done and one chunk lives.
Its logits lie in blocks of rows of the table; the gradient takes their place, and each block goes as soon as
it has been used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import custom_op

from deltalm_ds.ops.cuda.choice import by_kernel
from deltalm_ds.ops.products import calculation_dtype, multiply, operand
from deltalm_ds.ops.softmax import BlockedSoftmax

IGNORE = -100
"""Label of a token without loss."""

SmoothingForm = Literal["fairseq", "uniform"]

# Bytes of logits in one chunk of tokens. One chunk needs no fp32 sum of a bf16 weight gradient.
_CHUNK_BYTES = {"cpu": 1 << 30, "cuda": 7 << 28}
# Chunks have a multiple of so many tokens, as products like it.
_CHUNK_UNIT = 128
# Bytes of logits in one block. From 32 MiB on, glibc gives each block's pages back at once.
_BLOCK_BYTES = {"cpu": 36 << 20, "cuda": 1 << 28}
# Rows of the table, and columns of logits, copied into fp32 at once where products are taken in fp32.
_ROWS_COPIED = 1 << 12


class CrossEntropy(NamedTuple):
    """Sums over the tokens that have a label."""

    loss: Tensor
    """fp32 scalar: the smoothed loss, in nats; the only part with a gradient."""
    negative_log_likelihood: Tensor
    """fp32 scalar, in nats."""
    token_negative_log_likelihood: Tensor
    """fp32 [tokens], in nats; 0 where the label is IGNORE."""


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    label_smoothing: float = 0.0,
    smoothing_form: SmoothingForm = "fairseq",
    bias: Tensor | None = None,
) -> CrossEntropy:
    """Cross-entropy of softmax(hidden · weightᵀ + bias) against `target`, summed.

    hidden [tokens, width], weight [rows, width] and bias [rows], if any, in one dtype, target int64 [tokens]
    with IGNORE for tokens to leave out, which cost nothing. Logits in that dtype, softmax and all sums in
    fp32.

    Smoothing gives each of the V rows a share of `label_smoothing`. "fairseq": eps / (V - 1) to every other
    row and 1 - eps to the target. "uniform" (torch's, and fairseq's before 2020): eps / V to every row.
    """
    settings = (label_smoothing, smoothing_form)
    if len(weight) % 8 == 0 and by_kernel("cross_entropy", hidden.device.type):
        needed = [
            torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
            for tensor in (hidden, weight, bias)
        ]
        loss, token_nll, *_ = torch.ops.deltalm.linear_cross_entropy(
            hidden, weight, bias, target, *settings, *needed
        )
    else:
        loss, token_nll = _LinearCrossEntropy.apply(hidden, weight, bias, target, *settings)
    return CrossEntropy(loss, token_nll.sum(), token_nll)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        label_smoothing: float,
        smoothing_form: SmoothingForm,
    ) -> tuple[Tensor, Tensor]:
        settings = (label_smoothing, smoothing_form, *ctx.needs_input_grad[:3])
        loss, token_nll, *ctx.gradients = _losses_and_gradients(hidden, weight, bias, target, *settings)
        ctx.mark_non_differentiable(token_nll)
        return loss, token_nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(grads[0])
        return *gradients, None, None, None


@custom_op(
    "deltalm::linear_cross_entropy",
    mutates_args=(),
    schema="(Tensor hidden, Tensor weight, Tensor? bias, Tensor target, float label_smoothing,"
    " str smoothing_form, bool needs_hidden, bool needs_weight, bool needs_bias)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _operator(hidden: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same as one node for torch.compile; an empty tensor for a gradient that is not needed."""
    loss, token_nll, *gradients = _losses_and_gradients(hidden, *arguments)
    present = (hidden.new_empty(0) if gradient is None else gradient for gradient in gradients)
    return loss, token_nll, *present  # type: ignore[return-value]


@_operator.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    _: float,
    __: str,
    *needed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    loss, token_nll = (
        hidden.new_empty((), dtype=torch.float32),
        target.new_empty(target.shape, dtype=torch.float32),
    )
    gradients = (
        torch.empty_like(tensor) if is_needed and tensor is not None else hidden.new_empty(0)
        for tensor, is_needed in zip((hidden, weight, bias), needed, strict=True)
    )
    return loss, token_nll, *gradients  # type: ignore[return-value]


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.needed = inputs[6:]
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[2:])
    ctx.set_materialize_grads(False)


def _scaled_gradients(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    scaled = (
        gradient * grad if needed else None
        for gradient, needed in zip(ctx.saved_tensors, ctx.needed, strict=True)
    )
    return *scaled, *[None] * 6


_operator.register_autograd(_scaled_gradients, setup_context=_keep_gradients)


def _losses_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    label_smoothing: float,
    smoothing_form: SmoothingForm,
    needs_hidden: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The summed loss, each token's negative log-likelihood, and the gradients that are needed."""
    on_target, on_all = _loss_weights(label_smoothing, smoothing_form, len(weight))
    selected = (target != IGNORE).nonzero().squeeze(1)
    everything = len(selected) == len(target)
    kept_hidden = hidden if everything else hidden[selected]
    kept_target = target if everything else target[selected]

    grad_hidden = torch.empty_like(kept_hidden) if needs_hidden else None
    chunk_tokens = max(1, _CHUNK_BYTES[hidden.device.type] // (weight.element_size() * len(weight)))
    chunk_tokens -= chunk_tokens % _CHUNK_UNIT if chunk_tokens > _CHUNK_UNIT else 0
    chunks = range(0, len(selected), chunk_tokens)
    grad_weight = _sum_like(weight, len(chunks)) if needs_weight else None
    grad_bias = None
    if bias is not None and needs_bias:
        grad_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
    kept_nll, kept_loss = hidden.new_empty(2, len(selected), dtype=torch.float32)
    for start in chunks:
        part = slice(start, start + chunk_tokens)
        chunk = _Chunk(kept_hidden[part], weight, bias, kept_target[part], on_target, on_all)
        kept_nll[part], kept_loss[part] = chunk.losses(keep=needs_hidden or needs_weight or needs_bias)
        part_grad = None if grad_hidden is None else grad_hidden[part]
        chunk.gradients(part_grad, grad_weight, grad_bias, first_of_all=start == 0)

    token_nll = kept_nll
    if not everything:
        token_nll = kept_nll.new_zeros(len(target)).index_put_((selected,), kept_nll)
        if grad_hidden is not None:
            grad_hidden = torch.zeros_like(hidden).index_put_((selected,), grad_hidden)
    return (
        kept_loss.sum(),
        token_nll,
        grad_hidden,
        None if grad_weight is None else grad_weight.to(weight.dtype),
        None if grad_bias is None else grad_bias.to(weight.dtype),
    )


def _loss_weights(label_smoothing: float, form: SmoothingForm, num_rows: int) -> tuple[float, float]:
    """A token's loss is on_target · nll + on_all · (the sum of every row's nll); both as fractions of one."""
    if form == "fairseq":
        on_all = label_smoothing / (num_rows - 1)
        return 1 - label_smoothing - on_all, on_all
    return 1 - label_smoothing, label_smoothing / num_rows


class _Chunk:
    """Some of the tokens against the whole table."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        on_target: float,
        on_all: float,
    ) -> None:
        self.hidden = hidden
        self.weight = weight
        self.bias = bias
        self.on_target = on_target
        self.on_all = on_all
        self.softmax = BlockedSoftmax(labels)
        self.blocks: list[Tensor] = []
        self.by_kernel = len(weight) % 8 == 0 and by_kernel("cross_entropy", hidden.device.type)

    def losses(self, keep: bool) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and loss, fp32 [tokens]; `keep` the logits for `gradients`."""
        if self.by_kernel:
            logits = self.hidden @ self.weight.t()
            if self.bias is not None:
                logits += self.bias
            weights = (self.on_target, self.on_all)
            nll, loss = torch.ops.deltalm.cross_entropy(logits, self.softmax.labels, *weights, keep)
            if keep:
                self.blocks.append(logits)  # the gradient already
            return nll, loss
        hidden = operand(self.hidden, "hidden")
        for rows in self._row_blocks():
            logits = self.hidden.new_empty(len(hidden), len(self.weight[rows]))
            for piece, columns in self._pieces(rows):
                multiply(hidden, operand(self.weight[piece], "weight").t(), out=logits[:, columns])
            if self.bias is not None:
                logits += self.bias[rows]
            self.softmax.add(logits, rows.start)
            if keep:
                self.blocks.append(logits)
        return self.softmax.losses(self.on_target, self.on_all, len(self.weight))

    def gradients(
        self,
        grad_hidden: Tensor | None,
        grad_weight: Tensor | None,
        grad_bias: Tensor | None,
        first_of_all: bool,
    ) -> None:
        """Write the gradient of hidden, write or add that of the weight, add the bias's, block by block."""
        hidden = operand(self.hidden, "hidden")
        sum_hidden = torch.zeros_like(hidden, dtype=torch.promote_types(hidden.dtype, torch.float32))
        self.blocks.reverse()  # to let go of each from the list's end
        for rows in self._row_blocks() if self.blocks else ():
            logits = self.blocks.pop()
            if not self.by_kernel:
                self.softmax.to_gradient(logits, rows.start, self.on_target, self.on_all)
            if grad_bias is not None:
                grad_bias[rows] += logits.sum(0, dtype=grad_bias.dtype)
            for piece, columns in self._pieces(rows):
                grad_logits = operand(logits[:, columns], "gradient")
                if grad_hidden is not None:
                    _add_product(sum_hidden, grad_logits, operand(self.weight[piece], "weight"))
                if grad_weight is None:
                    continue
                if first_of_all and _adds_in_fp32(grad_weight[piece], hidden):
                    torch.mm(grad_logits.t(), hidden, out_dtype=torch.float32, out=grad_weight[piece])
                elif first_of_all:
                    multiply(grad_logits.t(), hidden, out=grad_weight[piece])
                else:
                    _add_product(grad_weight[piece], grad_logits.t(), hidden)
        if grad_hidden is not None:
            grad_hidden.copy_(sum_hidden)

    def _row_blocks(self) -> Iterator[slice]:
        bytes_a_row = len(self.hidden) * self.weight.element_size()
        at_once = max(1, _BLOCK_BYTES[self.weight.device.type] // bytes_a_row)
        if self.by_kernel:  # it wants whole rows of logits
            at_once = len(self.weight)
        return (slice(start, start + at_once) for start in range(0, len(self.weight), at_once))

    def _pieces(self, rows: slice) -> Iterator[tuple[slice, slice]]:
        """Rows of the table and their columns in the block of `rows`."""
        num_rows = len(self.weight[rows])
        at_once = num_rows if calculation_dtype(self.weight) == self.weight.dtype else _ROWS_COPIED
        for first in range(0, num_rows, at_once):
            columns = slice(first, min(first + at_once, num_rows))
            yield slice(rows.start + columns.start, rows.start + columns.stop), columns


def _sum_like(weight: Tensor, num_chunks: int) -> Tensor:
    """Where the weight's gradient is summed: in fp32 over several chunks; zeros without any."""
    if num_chunks == 0:
        return torch.zeros_like(weight)
    return torch.empty_like(
        weight, dtype=weight.dtype if num_chunks == 1 else torch.promote_types(weight.dtype, torch.float32)
    )


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left · right of operands; total in fp32 where they are less precise."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif _adds_in_fp32(total, left):
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += left @ right


def _adds_in_fp32(total: Tensor, operand: Tensor) -> bool:
    """Whether the device gives products of 16-bit operands in fp32, without rounding them first."""
    return total.device.type == "cuda" and total.dtype == torch.float32 != operand.dtype
