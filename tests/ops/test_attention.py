"""Packed attention against the dense formula in fp64, one sequence at a time."""

import pytest
import torch
from torch.autograd import gradcheck

from deltalm_ds import ops
from deltalm_ds.ops import Dropout
from deltalm_ds.ops.dropout import probability_mask
from deltalm_ds.ops.padded_attention import attend_padded

HEADS, HEAD_WIDTH = 3, 8

SHAPES = {
    "ragged self": ([5, 1, 7], [5, 1, 7], False),
    "ragged causal": ([5, 1, 7], [5, 1, 7], True),
    "ragged cross": ([2, 6, 3], [5, 1, 7], False),
    "even self": ([4, 4], [4, 4], False),
    "even causal": ([4, 4], [4, 4], True),
    "even cross": ([2, 2, 2], [5, 5, 5], False),
    "empty sequences": ([0, 3, 0, 2], [0, 3, 0, 2], True),
    "empty queries": ([0, 3], [2, 3], False),
    "empty keys": ([2, 3], [0, 3], False),
    "all keys empty": ([2, 2], [0, 0], False),
    "one token": ([1], [1], True),
}


def cumulative(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def inputs(lengths_q, lengths_k, dtype):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(sum(lengths), HEADS, HEAD_WIDTH, generator=generator).to(dtype).requires_grad_()
        for lengths in (lengths_q, lengths_k, lengths_k)
    ]


def call(tensors, lengths_q, lengths_k, causal, dropout=None):
    return ops.attention(
        *tensors,
        cumulative(lengths_q),
        cumulative(lengths_k),
        max(lengths_q),
        max(lengths_k),
        causal,
        dropout,
    )


def dense(tensors, lengths_q, lengths_k, causal, dropout=None):
    """softmax(q kᵀ / √width) v by explicit loops over sequences and heads."""
    query, key, value = tensors
    rows, first_q, first_k = [], 0, 0
    for length_q, length_k in zip(lengths_q, lengths_k, strict=True):
        for i in range(length_q):
            seen = i + 1 if causal else length_k
            keys = slice(first_k, first_k + seen)
            for head in range(HEADS):
                scores = key[keys, head] @ query[first_q + i, head] / HEAD_WIDTH**0.5
                probabilities = scores.softmax(0)
                if dropout is not None:
                    kept = probability_mask(dropout, HEADS, max(seen, 1))[first_q + i, head, :seen]
                    probabilities = probabilities * kept * dropout.scale
                rows.append(probabilities @ value[keys, head])
        first_q, first_k = first_q + length_q, first_k + length_k
    return torch.stack(rows).view(query.shape)


def gradients(output, tensors):
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return torch.autograd.grad((output * weights).sum(), tensors, materialize_grads=True)


def dropout_of(lengths):
    return Dropout(
        probability=0.4,
        seed=1,
        step=2,
        layer=3,
        site=16,
        sample_of_token=torch.repeat_interleave(torch.arange(len(lengths)) + 9, torch.tensor(lengths)),
        index_of_token=torch.cat([torch.arange(length) for length in lengths]),
    )


@pytest.mark.parametrize("with_dropout", [False, True], ids=["plain", "dropout"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_dense_formula(shape, dtype, tolerance, with_dropout):
    lengths_q, lengths_k, causal = SHAPES[shape]
    dropout = dropout_of(lengths_q) if with_dropout else None
    tensors = inputs(lengths_q, lengths_k, dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    ours, expected = (
        [output, *gradients(output, arguments)]
        for output, arguments in (
            (call(tensors, lengths_q, lengths_k, causal, dropout), tensors),
            (dense(exact, lengths_q, lengths_k, causal, dropout), exact),
        )
    )
    for mine, reference in zip(ours, expected, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - reference).norm() <= tolerance * max(reference.norm(), 1)


@pytest.mark.parametrize("shape", ["ragged causal", "ragged cross", "even cross"])
def test_gradcheck(shape):
    lengths_q, lengths_k, causal = SHAPES[shape]
    tensors = inputs(lengths_q, lengths_k, torch.float64)
    assert gradcheck(lambda *tensors: call(tensors, lengths_q, lengths_k, causal), tensors)


def test_a_query_without_keys_gets_zeros():
    tensors = inputs([2, 3], [0, 3], torch.float32)
    output = call(tensors, [2, 3], [0, 3], False)
    assert not output[:2].any()
    assert not gradients(output, tensors)[0][:2].any()


def test_no_sequences():
    empty = torch.zeros(0, HEADS, HEAD_WIDTH)
    nothing = torch.zeros(1, dtype=torch.int32)
    assert ops.attention(empty, empty, empty, nothing, nothing, 0, 0, False).shape == empty.shape


def test_other_sequences_change_nothing():
    lengths = [5, 1, 7]
    tensors = inputs(lengths, lengths, torch.float32)
    together = call(tensors, lengths, lengths, True, dropout_of(lengths))
    dropout = dropout_of(lengths)
    first = Dropout(0.4, 1, 2, 3, 16, dropout.sample_of_token[:5], dropout.index_of_token[:5])
    alone = call([tensor[:5] for tensor in tensors], [5], [5], True, first)
    torch.testing.assert_close(alone, together[:5])


# By padded rows: the way of GPUs without our kernel.


def padded(tensors, lengths_q, lengths_k, causal, function=attend_padded):
    lengths = (cumulative(lengths_q), cumulative(lengths_k), max(lengths_q), max(lengths_k))
    return function(*tensors, *lengths, causal)


@pytest.mark.parametrize("shape", SHAPES)
def test_padded_rows_give_the_same(shape):
    tensors = inputs(*SHAPES[shape][:2], torch.float64)
    found, expected = (function(tensors, *SHAPES[shape]) for function in (padded, call))
    pairs = zip((found, *gradients(found, tensors)), (expected, *gradients(expected, tensors)), strict=True)
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


def test_padded_rows_are_traced_in_one_graph():
    compiled = torch.compile(attend_padded, fullgraph=True, backend="aot_eager")
    tensors = inputs(*SHAPES["ragged cross"][:2], torch.float64)
    found = padded(tensors, *SHAPES["ragged cross"], function=compiled)
    torch.testing.assert_close(found, call(tensors, *SHAPES["ragged cross"]))
