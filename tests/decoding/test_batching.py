from hypothesis import given
from hypothesis import strategies as st

from deltalm_ds.decoding.batching import batches_by_tokens


def test_like_lengths_together():
    assert batches_by_tokens([3, 9, 3, 1, 20, 8], 18) == [[4], [1, 5], [0, 2, 3]]
    assert batches_by_tokens([], 10) == []


@given(st.lists(st.integers(0, 50)), st.integers(1, 200))
def test_every_sentence_once_within_the_budget(lengths, max_tokens):
    batches = batches_by_tokens(lengths, max_tokens)
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[number] for number in batch) <= max_tokens
