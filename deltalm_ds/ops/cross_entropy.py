"""Output projection and cross-entropy in one, over a chunk of tokens at a time (torch reference).

A full table of logits would hold tokens x 250,104 numbers, most of the memory of a step. Here the gradient
is taken together with the loss, chunk by chunk, so that three products in all are done and one chunk lives.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

IGNORE = -100
"""Label of a token without loss."""

SmoothingForm = Literal["fairseq", "uniform"]

# Bytes of fp32 logits in one chunk: large enough for full-speed products, small beside the activations.
_CHUNK_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}
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
        num_rows = len(weight)
        # The loss of a token is on_target · nll + on_all · (sum of all rows' nll); its weights sum to one.
        if smoothing_form == "fairseq":
            on_all = label_smoothing / (num_rows - 1)
            on_target = 1 - label_smoothing - on_all
        else:
            on_all = label_smoothing / num_rows
            on_target = 1 - label_smoothing
        selected = (target != IGNORE).nonzero().squeeze(1)
        everything = len(selected) == len(target)
        kept_hidden = hidden if everything else hidden[selected]
        kept_target = target if everything else target[selected]

        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(kept_hidden) if needs_hidden else None
        grad_weight = _WeightGradient(weight) if needs_weight else None
        kept_nll = torch.empty(len(selected), dtype=torch.float32, device=hidden.device)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        chunk = max(1, _CHUNK_BYTES.get(hidden.device.type, 1 << 28) // (4 * num_rows))
        for start in range(0, len(selected), chunk):
            part = slice(start, start + chunk)
            labels = kept_target[part, None]
            logits = kept_hidden[part] @ weight.t()
            log_probabilities = torch.log_softmax(logits, -1, dtype=torch.float32)
            del logits
            nll = -log_probabilities.gather(1, labels).squeeze(1)
            kept_nll[part] = nll
            loss += on_target * nll.sum()
            if on_all:
                loss -= on_all * log_probabilities.sum()
            if not (needs_hidden or needs_weight):
                continue
            grad_logits = log_probabilities.exp_()
            if on_all:
                grad_logits -= on_all
            grad_logits.scatter_add_(1, labels, grad_logits.new_full((1, 1), -on_target).expand_as(labels))
            grad_logits = grad_logits.to(hidden.dtype)
            del log_probabilities
            if grad_hidden is not None:
                torch.mm(grad_logits, weight, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight.add(grad_logits, kept_hidden[part])

        token_nll = kept_nll
        if not everything:
            token_nll = kept_nll.new_zeros(len(target)).index_put_((selected,), kept_nll)
            if grad_hidden is not None:
                grad_hidden = torch.zeros_like(hidden).index_put_((selected,), grad_hidden)
        ctx.gradients = grad_hidden, None if grad_weight is None else grad_weight.sum
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(token_nll)
        return loss, token_nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = ctx.gradients
        # Letting go of them here lets autograd add the embedding's gradient in place.
        ctx.gradients = None
        scale = grads[0]
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(scale)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(scale).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None


class _WeightGradient:
    """gradᵀ · hidden summed over chunks in fp32, whatever the dtype of the factors."""

    def __init__(self, weight: Tensor) -> None:
        self.sum = torch.zeros_like(weight, dtype=torch.float32)

    def add(self, grad_logits: Tensor, hidden: Tensor) -> None:
        """grad_logits [chunk, rows], hidden [chunk, width]."""
        if hidden.dtype == torch.float32:
            self.sum.addmm_(grad_logits.t(), hidden)
            return
        for start in range(0, len(self.sum), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            self.sum[rows] += grad_logits[:, rows].t() @ hidden
