"""Softmax over logits whose classes come in blocks, so that no row of them need be in one piece."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalm_ds.ops.native import kernels


def log_sums(logits: Tensor) -> Tensor:
    """log Σ exp of each row of logits [rows, classes], fp32 [rows]."""
    running = BlockedSoftmax(torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
    running.add(logits, 0)
    return (running.highest + running.exponentials.log()).float()


class BlockedSoftmax:
    """Losses of tokens and their gradient, from blocks of logits [tokens, classes of the block].

    All blocks pass through `add`, then, for the gradient, through `to_gradient`. A token's loss is
    on_target · nll + on_all · (the sum of all classes' nll).
    """

    def __init__(self, labels: Tensor) -> None:
        """labels int64 [tokens]: each token's class."""
        self.labels = labels.contiguous()
        self.highest = labels.new_full(labels.shape, torch.finfo(torch.float32).min, dtype=torch.float32)
        self.label_logits = torch.zeros_like(self.highest)
        self.exponentials = labels.new_zeros(labels.shape, dtype=torch.float64)
        self.sums = torch.zeros_like(self.exponentials)

    def add(self, logits: Tensor, first_class: int) -> None:
        """Take in a block whose classes count from first_class."""
        if kernels.support(logits):
            running = (self.highest, self.exponentials, self.sums, self.label_logits)
            kernels.softmax_add(logits, self.labels, *running, first_class)
            return
        precise = logits.float()
        higher = torch.maximum(self.highest, precise.amax(1))
        self.exponentials *= (self.highest.double() - higher).exp()
        self.exponentials += (precise - higher[:, None]).exp_().sum(1)
        self.sums += precise.sum(1)
        self.highest = higher
        index, inside = self._label_index(logits, first_class)
        self.label_logits += precise.gather(1, index).squeeze(1) * inside

    def losses(self, on_target: float, on_all: float, num_classes: int) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood and loss, fp32 [tokens]."""
        log_sums = self.highest + self.exponentials.log()
        nll = log_sums - self.label_logits
        loss = on_target * nll
        if on_all:
            loss += on_all * (num_classes * log_sums - self.sums)
        return nll.float(), loss.float()

    def to_gradient(self, logits: Tensor, first_class: int, on_target: float, on_all: float) -> None:
        """A block's logits become the gradient of the summed loss."""
        if kernels.support(logits):
            running = (self.highest, self.exponentials)
            kernels.softmax_gradient(logits, self.labels, *running, on_target, on_all, first_class)
            return
        gradient = (logits.float() - self.highest[:, None]).exp_()
        gradient.mul_(self.exponentials.reciprocal().float()[:, None]).sub_(on_all)
        index, inside = self._label_index(logits, first_class)
        gradient.scatter_add_(1, index, -on_target * inside[:, None].float())
        logits.copy_(gradient)

    def _label_index(self, logits: Tensor, first_class: int) -> tuple[Tensor, Tensor]:
        """Each label's column [tokens, 1] and bool [tokens]: whether it is in the block; else any column."""
        column = self.labels - first_class
        inside = (column >= 0) & (column < logits.shape[1])
        return column.clamp(0, logits.shape[1] - 1)[:, None], inside
