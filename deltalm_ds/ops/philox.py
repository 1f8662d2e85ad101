"""Dropout decisions from a counter-based generator, so that no packing or rank changes them.

Philox4x32 with seven rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; seven
is the fewest that passes BigCrush). Key and counter of the call that decides features 8f … 8f + 7 of a token:

    key      seed, layer << 8 | site
    counter  step, sample position (low 32 bits), token | sample position (high 16 bits) << 16, f

Feature 8f + j takes 16 bits of the result: word j // 2, its low half for even j and its high half for odd j.
It is kept when they are at least `drop_threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDS = 7
DECISIONS_PER_CALL = 8
MAX_SAMPLE_POSITION = 2**48
MAX_TOKENS_IN_SAMPLE = 2**16

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF

# Calls computed together on a CPU: four counters of 64-bit integers and the temporaries stay in the L2 cache.
_CALLS_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Dropout:
    """One site's dropout over a packed batch: all that its decisions depend on."""

    probability: float
    """Share of features dropped, honoured to 1/65,536."""
    seed: int
    """The run's seed, in [0, 2^32)."""
    step: int
    """The optimizer step, in [0, 2^32)."""
    layer: int
    """Number of the layer, encoder layers first."""
    site: int
    """Number of the place within the layer, in [0, 256)."""
    sample_of_token: Tensor
    """[tokens] int64: global sample position of each token's sequence, below 2^48."""
    index_of_token: Tensor
    """[tokens] int64: each token's place within its sample, below 2^16."""

    @property
    def drop_threshold(self) -> int:
        """Sixteen random bits below this number drop the feature."""
        return round(self.probability * 65536)

    @property
    def scale(self) -> float:
        """What kept features are multiplied by: one over the share that is really kept."""
        return 65536 / (65536 - self.drop_threshold)

    @property
    def key(self) -> tuple[int, int]:
        """Philox's two key words."""
        return self.seed, self.layer << 8 | self.site


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int], rounds: int = ROUNDS
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random 32-bit words for each counter, as int64 tensors; `counter` holds int64 below 2^32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # The product wraps in int64, its bits are right: take the high word by an unsigned shift.
        c0 = (product1 >> 32).bitwise_and_(_WORD).bitwise_xor_(c1).bitwise_xor_(k0)
        c2 = (product0 >> 32).bitwise_and_(_WORD).bitwise_xor_(c3).bitwise_xor_(k1)
        c1, c3 = product1.bitwise_and_(_WORD), product0.bitwise_and_(_WORD)
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _WORD, (k1 + _KEY_INCREMENTS[1]) & _WORD
    return c0, c1, c2, c3


def decide(dropout: Dropout, calls: Tensor) -> Tensor:
    """The decisions of call numbers `calls` [calls] for each token: bool [tokens, calls * 8]."""
    num_calls = len(calls)
    samples, indices = dropout.sample_of_token, dropout.index_of_token
    tokens_at_once = max(1, len(samples))
    if samples.device.type == "cpu":
        tokens_at_once = max(1, _CALLS_AT_ONCE // max(1, num_calls))
    mask = torch.empty(len(samples), num_calls * DECISIONS_PER_CALL, dtype=torch.bool, device=samples.device)
    # int16 comparison: flipping the top bit maps unsigned order to signed order.
    threshold = dropout.drop_threshold - 32768
    for start in range(0, len(samples), tokens_at_once):
        sample = samples[start : start + tokens_at_once, None]
        index = indices[start : start + tokens_at_once, None]
        shape = (len(sample), num_calls)
        words = philox4x32(
            (
                torch.full(shape, dropout.step, device=sample.device),
                (sample & _WORD).expand(shape),
                (index | (sample >> 32) << 16).expand(shape),
                calls.expand(shape),
            ),
            dropout.key,
        )
        halves = torch.stack(words, -1).to(torch.int32).view(torch.int16)
        torch.ge(
            halves.bitwise_xor_(-32768).flatten(1),
            threshold,
            out=mask[start : start + tokens_at_once],
        )
    return mask
