"""Lengths and FLOPs of samples."""

from __future__ import annotations

import numpy as np
import pytest

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.samples import SampleKind, flops_of, pretraining_kinds, tokens_of
from deltalm_ds.training.flops import training_flops


def test_windows_of_512_tokens_as_the_default_objectives_corrupt_them():
    """461 + 101 and 341 + 341 tokens in the authors' form; the decoder reads one less."""
    mono, pairs = pretraining_kinds(512)
    assert (mono.source_length, mono.target_length) == (461, 100)
    assert (pairs.source_length, pairs.target_length) == (341, 340)
    assert (mono.share, pairs.share) == pytest.approx((0.8, 0.2))
    assert tokens_of((mono, pairs)) == pytest.approx(0.8 * 561 + 0.2 * 681)


def test_flops_are_those_of_training_flops():
    config = DeltaLMConfig.preset("base")
    kinds = (SampleKind(0.25, 512, 114), SampleKind(0.75, 300, 200))
    by_kind = [
        training_flops(config, np.array([source]), np.array([target]), target)
        for source, target in ((512, 114), (300, 200))
    ]
    assert flops_of(config, kinds) == pytest.approx(0.25 * by_kind[0] + 0.75 * by_kind[1])
    head = 3 * 2 * (0.25 * 114 + 0.75 * 200) * config.width * config.vocabulary_rows
    assert flops_of(config, kinds) - flops_of(config, kinds, with_head=False) == pytest.approx(head)
