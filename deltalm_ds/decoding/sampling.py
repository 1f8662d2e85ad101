"""Drawing tokens, each from numbers that follow from seed, sentence, step and hypothesis alone."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.ops.philox import philox4x32

_STREAM = 0x5A3317
"""Second key word, which no dropout has: a layer number and a site."""
_WORD = 0xFFFFFFFF


def uniform(seed: int, numbers: Tensor, step: int, num_hypotheses: int) -> Tensor:
    """float64 [sentences, num_hypotheses] in (0, 1); numbers [sentences] int64 are global sentence numbers."""
    shape = (len(numbers), num_hypotheses)
    words = philox4x32(
        (
            torch.full(shape, step, device=numbers.device),
            (numbers & _WORD)[:, None].expand(shape),
            ((numbers >> 32) & _WORD)[:, None].expand(shape),
            torch.arange(num_hypotheses, device=numbers.device).expand(shape),
        ),
        (seed, _STREAM),
    )
    return (words[0].double() + 0.5) / 2.0**32


def draw(logits: Tensor, uniforms: Tensor, settings: SearchSettings) -> Tensor:
    """One token for each number of uniforms [rows, draws], as its row of logits [rows, vocabulary] has it.

    After temperature, of the `top_k` likeliest, of the likeliest with probability `top_p` together.
    """
    ids = None
    if settings.top_k or settings.top_p < 1:
        num_considered = min(settings.top_k or logits.shape[1], logits.shape[1])
        logits, ids = logits.topk(num_considered, dim=1)
    highest = logits.amax(1, keepdim=True)
    cumulative = ((logits - highest).double() / settings.temperature).exp_().cumsum(1)
    total = cumulative[:, -1:]
    if settings.top_p < 1:
        # The first place where the sum reaches top_p is the last that counts.
        last = torch.searchsorted(cumulative, total * settings.top_p).clamp_(max=logits.shape[1] - 1)
        total = cumulative.gather(1, last)
    places = torch.searchsorted(cumulative, uniforms * total, right=True).clamp_(max=logits.shape[1] - 1)
    return places if ids is None else ids.gather(1, places)
