"""Dropout bits: the published generator, their layout, and what they do not depend on."""

import pytest
import torch

from deltalm_ds.ops.dropout import keep_mask, probability_mask
from deltalm_ds.ops.philox import Dropout, philox4x32

ONES = 0xFFFFFFFF
PI = ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
# Random123's published vectors (kat_vectors).
KNOWN = [
    (7, (0, 0, 0, 0), (0, 0), "5f6fb709 0d893f64 4f121f81 4f730a48"),
    (7, (ONES,) * 4, (ONES,) * 2, "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (7, *PI, "4dfccaba 190a87f0 c47362ba b6b5242a"),
    (10, (0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, (ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (10, *PI, "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "words"), KNOWN)
def test_published_vectors(rounds, counter, key, words):
    tensors = tuple(torch.tensor([word]) for word in counter)
    result = philox4x32(tensors, key, rounds)
    assert " ".join(f"{int(word):08x}" for word in result) == words
    assert " ".join(f"{word:08x}" for word in scalar_philox(counter, key, rounds)) == words


def scalar_philox(counter, key, rounds=7):
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        low, high = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = high >> 32 ^ c1 ^ k0, high & ONES, low >> 32 ^ c3 ^ k1, low & ONES
        k0, k1 = (k0 + 0x9E3779B9) & ONES, (k1 + 0xBB67AE85) & ONES
    return c0, c1, c2, c3


def is_kept(dropout, sample, token, feature):
    """One decision, from the description of the layout alone."""
    counter = (dropout.step, sample & ONES, token | sample >> 32 << 16, feature // 8)
    words = scalar_philox(counter, (dropout.seed, dropout.layer << 8 | dropout.site))
    half = words[feature % 8 // 2] >> 16 * (feature % 2) & 0xFFFF
    return half >= round(dropout.probability * 65536)


def dropout(samples, tokens, **changes):
    settings = {"probability": 0.3, "seed": 2**32 - 5, "step": 77, "layer": 13, "site": 19, **changes}
    return Dropout(**settings, sample_of_token=torch.tensor(samples), index_of_token=torch.tensor(tokens))


SAMPLES = [5, 5, 5, 2**32 + 7, 2**48 - 1, 0]
TOKENS = [0, 1, 2, 65535, 511, 0]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("num_features", [1, 8, 20, 140])
def test_layout_of_the_mask(num_features):
    here = dropout(SAMPLES, TOKENS)
    mask = keep_mask(here, num_features)
    assert mask.dtype == torch.bool
    assert mask.tolist() == [
        [is_kept(here, sample, token, feature) for feature in range(num_features)]
        for sample, token in zip(SAMPLES, TOKENS, strict=True)
    ]


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("num_keys", [3, 16, 140])
def test_layout_of_the_probability_mask(num_keys):
    here = dropout(SAMPLES, TOKENS)
    assert probability_mask(here, 3, num_keys).tolist() == [
        [[is_kept(here, sample, token, head << 16 | key) for key in range(num_keys)] for head in range(3)]
        for sample, token in zip(SAMPLES, TOKENS, strict=True)
    ]


@pytest.mark.usefixtures("implementation")
def test_many_tokens_are_the_same_in_any_order_and_split():
    samples, tokens = torch.arange(700) // 7 + 2**31 - 50, torch.arange(700) % 7
    whole = keep_mask(dropout(samples.tolist(), tokens.tolist()), 300)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(0))
    parts = [
        keep_mask(dropout(samples[part].tolist(), tokens[part].tolist()), 300) for part in order.split(123)
    ]
    assert torch.equal(torch.cat(parts), whole[order])
    assert torch.equal(keep_mask(dropout(samples.tolist(), tokens.tolist()), 40), whole[:, :40])


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_share_dropped(probability):
    here = dropout([3] * 2000, list(range(2000)), probability=probability)
    share = 1 - keep_mask(here, 1000).float().mean().item()
    assert abs(share - probability) < 5 * (probability * (1 - probability) / 2e6) ** 0.5
    assert here.scale * (1 - probability) == pytest.approx(1, abs=1e-4)


def test_every_part_of_the_address_matters():
    bits = [
        keep_mask(dropout([sample], [token], **changes), 256)
        for sample, token, changes in [
            (5, 3, {}),
            (6, 3, {}),
            (5 + 2**32, 3, {}),
            (5, 4, {}),
            (5, 3, {"seed": 1}),
            (5, 3, {"step": 78}),
            (5, 3, {"layer": 14}),
            (5, 3, {"site": 20}),
        ]
    ]
    for first in range(len(bits)):
        for second in range(first):
            assert 0.3 < (bits[first] != bits[second]).float().mean() < 0.54


@pytest.mark.usefixtures("implementation")
def test_no_tokens():
    assert keep_mask(dropout([], []), 16).shape == (0, 16)
