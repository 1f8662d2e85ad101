"""Output projection and cross-entropy in one, over a chunk of tokens at a time.

A full table of logits would hold tokens x 250,104 numbers, most of the memory of a step. Here the gradient
is taken together with the loss, chunk by chunk, so that three products in all are done and one chunk lives,
in which the gradient takes the place of the logits.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deltalm_ds.ops.native import kernels

IGNORE = -100
"""Label of a token without loss."""

SmoothingForm = Literal["fairseq", "uniform"]

# Bytes of logits in one chunk: large enough for full-speed products, small beside the activations.
_CHUNK_BYTES = {"cpu": 1 << 29, "cuda": 1 << 31}
# Bytes of fp32 probabilities at once where no kernel works in place.
_PIECE_BYTES = 1 << 28
# Rows of a low-precision weight gradient computed before it is added to the fp32 sum.
_ROWS_AT_ONCE = 1 << 15


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
) -> CrossEntropy:
    """Cross-entropy of softmax(hidden · weightᵀ) against `target`, summed.

    hidden [tokens, width] and weight [rows, width] in one dtype, target int64 [tokens] with IGNORE for
    tokens to leave out, which cost nothing. Logits in that dtype, softmax and all sums in fp32.

    Smoothing gives each of the V rows a share of `label_smoothing`. "fairseq": eps / (V - 1) to every other
    row and 1 - eps to the target. "uniform" (torch's, and fairseq's before 2020): eps / V to every row.
    """
    loss, token_nll = _LinearCrossEntropy.apply(hidden, weight, target, label_smoothing, smoothing_form)
    return CrossEntropy(loss, token_nll.sum(), token_nll)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target: Tensor,
        label_smoothing: float,
        smoothing_form: SmoothingForm,
    ) -> tuple[Tensor, Tensor]:
        on_target, on_all = _loss_weights(label_smoothing, smoothing_form, len(weight))
        selected = (target != IGNORE).nonzero().squeeze(1)
        everything = len(selected) == len(target)
        kept_hidden = hidden if everything else hidden[selected]
        kept_target = target if everything else target[selected]

        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        needs_gradient = needs_hidden or needs_weight
        grad_hidden = torch.empty_like(kept_hidden) if needs_hidden else None
        chunk_tokens = max(1, _CHUNK_BYTES[hidden.device.type] // (weight.element_size() * len(weight)))
        chunks = range(0, len(selected), chunk_tokens)
        grad_weight = _WeightGradient(weight, len(chunks)) if needs_weight else None
        kept_nll, kept_loss = hidden.new_empty(2, len(selected), dtype=torch.float32)
        logits = weight.new_empty(min(chunk_tokens, len(selected)), len(weight))
        for start in chunks:
            part = slice(start, start + chunk_tokens)
            part_hidden, part_target = kept_hidden[part], kept_target[part]
            part_logits = torch.mm(part_hidden, weight.t(), out=logits[: len(part_hidden)])
            settings = (part_target, on_target, on_all, needs_gradient)
            kept_nll[part], kept_loss[part] = _losses_and_gradient(part_logits, *settings)
            if grad_hidden is not None:
                torch.mm(part_logits, weight, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight.add(part_logits, part_hidden)

        token_nll = kept_nll
        if not everything:
            token_nll = kept_nll.new_zeros(len(target)).index_put_((selected,), kept_nll)
            if grad_hidden is not None:
                grad_hidden = torch.zeros_like(hidden).index_put_((selected,), grad_hidden)
        ctx.gradients = grad_hidden, None if grad_weight is None else grad_weight.result()
        ctx.mark_non_differentiable(token_nll)
        return kept_loss.sum(), token_nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = ctx.gradients
        ctx.gradients = None
        for gradient in (grad_hidden, grad_weight):
            if gradient is not None:
                gradient.mul_(grads[0])
        return grad_hidden, grad_weight, None, None, None


def _loss_weights(label_smoothing: float, form: SmoothingForm, num_rows: int) -> tuple[float, float]:
    """A token's loss is on_target · nll + on_all · (the sum of every row's nll); both as fractions of one."""
    if form == "fairseq":
        on_all = label_smoothing / (num_rows - 1)
        return 1 - label_smoothing - on_all, on_all
    return 1 - label_smoothing, label_smoothing / num_rows


def _losses_and_gradient(
    logits: Tensor, target: Tensor, on_target: float, on_all: float, needs_gradient: bool
) -> tuple[Tensor, Tensor]:
    """fp32 negative log-likelihood and loss [tokens]; logits [tokens, rows] become the loss's gradient."""
    if kernels.support(logits):
        return kernels.cross_entropy(logits, target, on_target, on_all, needs_gradient)
    nll, loss = logits.new_empty(2, len(logits), dtype=torch.float32)
    tokens_at_once = max(1, _PIECE_BYTES // (4 * logits.shape[1]))
    for start in range(0, len(logits), tokens_at_once):
        part = slice(start, start + tokens_at_once)
        labels = target[part, None]
        log_probabilities = torch.log_softmax(logits[part], -1, dtype=torch.float32)
        nll[part] = -log_probabilities.gather(1, labels).squeeze(1)
        loss[part] = on_target * nll[part] - on_all * log_probabilities.sum(1)
        if needs_gradient:
            gradient = log_probabilities.exp_().sub_(on_all)
            gradient.scatter_add_(1, labels, gradient.new_full((1, 1), -on_target).expand_as(labels))
            logits[part] = gradient
    return nll, loss


class _WeightGradient:
    """gradᵀ · hidden summed over chunks in fp32, whatever the dtype of the factors."""

    def __init__(self, weight: Tensor, num_chunks: int) -> None:
        self.weight = weight
        # A single product sums in fp32 by itself, so one chunk needs no sum beside it.
        self.dtype = weight.dtype if num_chunks <= 1 else torch.promote_types(weight.dtype, torch.float32)
        self.sum: Tensor | None = None

    def add(self, grad_logits: Tensor, hidden: Tensor) -> None:
        """grad_logits [chunk, rows], hidden [chunk, width]."""
        if self.dtype == hidden.dtype:
            if self.sum is None:
                self.sum = grad_logits.t() @ hidden
            else:
                self.sum.addmm_(grad_logits.t(), hidden)
            return
        if self.sum is None:
            self.sum = torch.zeros_like(self.weight, dtype=self.dtype)
        for start in range(0, len(self.sum), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            self.sum[rows] += grad_logits[:, rows].t() @ hidden

    def result(self) -> Tensor:
        """[rows, width] in the weight's dtype; zeros without any chunk."""
        return torch.zeros_like(self.weight) if self.sum is None else self.sum.to(self.weight.dtype)
