"""What samples a run has: their lengths and their shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltalm_ds.data.settings import DataSettings
from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.training.flops import training_flops


@dataclass(frozen=True)
class SampleKind:
    """Samples of one length."""

    share: float
    """Of all samples."""
    source_length: int
    """Tokens that the encoder reads."""
    target_length: int
    """Tokens that the decoder reads and predicts."""

    @property
    def num_tokens(self) -> int:
        """Of both sides."""
        return self.source_length + self.target_length


def pretraining_kinds(text_length: int) -> tuple[SampleKind, ...]:
    """Windows of `text_length` tokens as pre-training corrupts them by default: of texts, and of pairs."""
    settings = DataSettings()
    kinds = []
    for share, corruption in (
        (settings.monolingual_share, settings.monolingual_corruption),
        (1 - settings.monolingual_share, settings.pair_corruption),
    ):
        lengths = corruption.lengths(text_length)
        kinds.append(SampleKind(share, int(lengths.source), int(lengths.decoder)))
    return tuple(kinds)


def flops_of(config: DeltaLMConfig, kinds: tuple[SampleKind, ...], *, with_head: bool = True) -> float:
    """Forward and backward of a sample, on average; without the head, of the layers alone."""
    return sum(
        kind.share
        * training_flops(
            config,
            np.array([kind.source_length]),
            np.array([kind.target_length]),
            kind.target_length if with_head else 0,
        )
        for kind in kinds
    )


def tokens_of(kinds: tuple[SampleKind, ...]) -> float:
    """Of both sides of a sample, on average."""
    return sum(kind.share * kind.num_tokens for kind in kinds)
