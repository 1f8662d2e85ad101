"""Packing, from sequences and from padded rows."""

import torch

from deltalm_ds.model import PackedTokens

PAD = 1


def test_from_sequences():
    packed = PackedTokens.from_sequences([[5, 6, 7], torch.tensor([8]), []], sample_ids=[9, 2**40, 3])
    assert packed.tokens.tolist() == [5, 6, 7, 8]
    assert packed.tokens.dtype == torch.int64
    assert packed.cumulative_lengths.tolist() == [0, 3, 4, 4]
    assert packed.cumulative_lengths.dtype == torch.int32
    assert packed.max_length == 3
    assert packed.lengths.tolist() == [3, 1, 0]
    assert packed.sample_ids.tolist() == [9, 2**40, 3]
    assert packed.sequence_of_token.tolist() == [0, 0, 0, 1]
    assert packed.index_in_sequence.tolist() == [0, 1, 2, 0]


def test_sequences_are_numbered_unless_told():
    assert PackedTokens.from_sequences([[5], [6]]).sample_ids.tolist() == [0, 1]


def test_from_padded_on_either_side():
    expected = PackedTokens.from_sequences([[5, 6, 7], [8]])
    for rows in ([[5, 6, 7], [8, PAD, PAD]], [[5, 6, 7], [PAD, PAD, 8]]):
        packed = PackedTokens.from_padded(torch.tensor(rows), PAD)
        assert torch.equal(packed.tokens, expected.tokens)
        assert torch.equal(packed.cumulative_lengths, expected.cumulative_lengths)
        assert packed.cumulative_lengths.dtype == torch.int32
        assert packed.max_length == expected.max_length
        assert torch.equal(packed.sample_ids, expected.sample_ids)


def test_nothing_at_all():
    for packed in (
        PackedTokens.from_sequences([]),
        PackedTokens.from_padded(torch.zeros(0, 4, dtype=torch.int64), PAD),
    ):
        assert packed.cumulative_lengths.tolist() == [0]
        assert packed.max_length == 0
        assert packed.index_in_sequence.tolist() == []


def test_to_device_keeps_the_batch():
    packed = PackedTokens.from_sequences([[5, 6], [7]], sample_ids=[4, 5]).to("meta")
    assert {t.device.type for t in (packed.tokens, packed.cumulative_lengths, packed.sample_ids)} == {"meta"}
    assert packed.max_length == 2
