"""Attention on the CPU by the GPU's sources: values, gradients, lengths, offsets, determinism."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import assert_close, attention, exact

HALVES = [torch.bfloat16, torch.float16]
LENGTHS = {
    "one tile": ([64], [64], False),
    "ragged, empty, single": ([5, 0, 130, 1, 3], [7, 3, 65, 1, 0], False),
    "causal": ([64, 0, 150, 1], [64, 0, 150, 1], True),
    "cross": ([29, 114], [200, 77], False),
}


def cumulative(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def made(lengths_q, lengths_k, num_heads, dtype):
    """query, key, value, grad of the output, in that dtype."""
    torch.manual_seed(sum(lengths_q) + num_heads)
    counts = (sum(lengths_q), sum(lengths_k), sum(lengths_k), sum(lengths_q))
    return [torch.randn(count, num_heads, 64).to(dtype) for count in counts]


def check(kernels, lengths_q, lengths_k, causal, dtype, num_heads):
    """Values and gradients against fp64."""
    query, key, value, grad = made(lengths_q, lengths_k, num_heads, dtype)
    lengths = (cumulative(lengths_q), cumulative(lengths_k), max(lengths_q), max(lengths_k))
    out, log_sums = kernels.attention(query, key, value, *lengths, causal)
    gradients = kernels.attention_backward(grad, query, key, value, out, log_sums, *lengths, causal)

    leaves = exact(query, key, value)
    expected, expected_log_sums = attention(*leaves, lengths_q, lengths_k, causal)
    expected.backward(grad.double())
    assert_close(out, expected.detach(), name="out")
    finite = expected_log_sums.isfinite()
    assert torch.equal(log_sums[~finite].double(), expected_log_sums[~finite].detach())
    assert_close(log_sums[finite], expected_log_sums[finite].detach(), name="log_sums")
    for name, found, leaf in zip(("query", "key", "value"), gradients, leaves, strict=True):
        # No gradient: no sequence has both queries and keys.
        expected = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        assert_close(found, expected, name=name, slack=1e-5)
    return out, log_sums, *gradients


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_values_and_gradients(kernels, lengths, dtype):
    check(kernels, *lengths, dtype, num_heads=2)


def test_512_by_512(compiled):
    check(compiled, [512], [512], False, torch.bfloat16, num_heads=1)


def test_equal_inputs_give_equal_bits(compiled):
    first = check(compiled, *LENGTHS["causal"], torch.bfloat16, num_heads=2)
    compiled.shuffle_threads(3)
    second = check(compiled, *LENGTHS["causal"], torch.bfloat16, num_heads=2)
    compiled.shuffle_threads(0)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_other_sequences_change_no_bit(compiled):
    """A sequence alone and between others: nothing beyond its ends is read."""
    query, key, value, grad = made([40, 70, 9], [33, 90, 20], 2, torch.bfloat16)

    def run(tensors, lengths_q, lengths_k):
        lengths = (cumulative(lengths_q), cumulative(lengths_k), max(lengths_q), max(lengths_k))
        q, k, v, g = tensors
        out, log_sums = compiled.attention(q, k, v, *lengths, False)
        return out, *compiled.attention_backward(g, q, k, v, out, log_sums, *lengths, False)

    alone = run([query[40:110], key[33:123], value[33:123], grad[40:110]], [70], [90])
    for tensor, place in ((query, slice(40, 110)), (key, slice(33, 123)), (value, slice(33, 123))):
        outside = torch.ones(len(tensor), dtype=torch.bool)
        outside[place] = False
        tensor[outside] = float("nan")
    among = run([query, key, value, grad], [40, 70, 9], [33, 90, 20])
    for one, many, place in zip(
        alone, among, (slice(40, 110), slice(40, 110), slice(33, 123), slice(33, 123)), strict=True
    ):
        assert torch.equal(one, many[place])


@pytest.mark.parametrize(
    ("lengths_q", "lengths_k", "longest_q", "longest_k", "causal", "words"),
    [
        ([0, 3], [0, 4], 4, 4, False, r"cumulative_lengths_q must be rising from 0 to 4 by at most 4"),
        ([0, 4], [0, 5, 4], 4, 4, False, "cumulative_lengths_k must be rising"),
        ([0, 4], [0, 4], 5, 4, False, "max_length_q must be the longest of 1 sequences that have 4 tokens"),
        ([0, 4], [0, 4], 4, 3, False, "max_length_k must be the longest"),
        ([0, 4], [0, 2, 4], 4, 4, False, r"cumulative_lengths_k must be of shape \[2\], not \[3\]"),
        ([], [0, 4], 4, 4, False, "cumulative_lengths_q must be of 1 to 65536 numbers, not of 0"),
        ([0, 1, 4], [0, 2, 4], 3, 2, True, "key must be as long as query"),
    ],
)
def test_lengths_that_do_not_add_up_are_told(
    compiled, lengths_q, lengths_k, longest_q, longest_k, causal, words
):
    query, key, value, _ = made([4], [4], 1, torch.bfloat16)
    lengths = (torch.tensor(numbers, dtype=torch.int32) for numbers in (lengths_q, lengths_k))
    with pytest.raises(ValueError, match=words):
        compiled.attention(query, key, value, *lengths, longest_q, longest_k, causal)


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=4),
    num_heads=st.integers(1, 3),
    causal=st.booleans(),
    half=st.sampled_from(HALVES),
    order=st.integers(0, 9),
)
def test_any_lengths(compiled, lengths, num_heads, causal, half, order):
    lengths_q = [one for one, _ in lengths]
    lengths_k = lengths_q if causal else [other for _, other in lengths]
    compiled.shuffle_threads(order)
    check(compiled, lengths_q, lengths_k, causal, half, num_heads)
    compiled.shuffle_threads(0)


def check_far_offsets(kernels):
    """A sequence that begins past 2^31 numbers: base pointers are faked, the memory before is not touched."""
    heads, length = 1, 70
    first = 2**31 // (heads * 64) + 3
    query, key, value, grad = made([length], [length], heads, torch.bfloat16)
    near = (cumulative([length]), cumulative([length]), length, length, False)
    expected, expected_sums = kernels.attention(query, key, value, *near)
    expected_gradients = kernels.attention_backward(grad, query, key, value, expected, expected_sums, *near)

    def far(tensor):
        return tensor.data_ptr() - first * heads * 64 * tensor.element_size()

    out, log_sums, deltas = torch.empty_like(query), torch.empty(heads, length), torch.empty(heads, length)
    lengths = torch.tensor([first, first + length], dtype=torch.int32)
    far_sums, far_deltas = (tensor.data_ptr() - first * 4 for tensor in (log_sums, deltas))
    inputs = (far(query), far(key), far(value))
    kernels._call(
        *("attention", far(out), far_sums, *inputs, lengths, lengths, 1, length, length, heads, 0.125, 0, 1),
    )
    assert torch.equal(out, expected)
    assert torch.equal(log_sums, expected_sums)
    gradients = [torch.empty_like(tensor) for tensor in (query, key, value)]
    # Its kernel for deltas begins at the first token: they are given here, and it is tried below.
    deltas.copy_((grad.double() * out.double()).sum(-1).t())
    outputs = (*map(far, gradients), far_deltas)
    kernels._call(
        *("attention_backward", *outputs, far(grad), *inputs, far(out), far_sums, lengths, lengths),
        *(1, 0, length, length, heads, 0.125, 0, 1),
    )
    return gradients, expected_gradients


def test_deltas_past_2_to_the_31(compiled):
    """The last queries of 2^25: the first of three launches alone has so many blocks."""
    queries_a_block, near = 32, 64
    first = 2**25 + queries_a_block
    grad, out = (torch.randn(near, 1, 64).bfloat16() for _ in range(2))
    deltas, unused = torch.zeros(1, near), torch.zeros(1)
    far = [tensor.data_ptr() - first * 128 for tensor in (grad, out)]
    lengths = torch.tensor([0, 1], dtype=torch.int32)
    compiled.begin_at_block(first // queries_a_block)
    compiled._call(
        *("attention_backward", unused, unused, unused, deltas.data_ptr() - first * 4, far[0]),
        *(unused, unused, unused, far[1], unused, lengths, lengths, 1, first + near, 1, 1, 1, 0.125, 0, 1),
    )
    compiled.begin_at_block(0)
    assert_close(deltas, (grad.double() * out.double()).sum(-1).t())


def test_offsets_past_2_to_the_31(compiled):
    found, expected = check_far_offsets(compiled)
    for gradient, near in zip(found, expected, strict=True):
        assert_close(gradient, near)


def test_wrong_arguments_are_named_before_any_launch(compiled):
    query, key, value, _ = made([4], [4], 2, torch.bfloat16)
    lengths = (cumulative([4]), cumulative([4]), 4, 4, False)
    for arguments, words in (
        ((query.float(), key, value, *lengths), "attention: query must be torch.bfloat16 or torch.float16"),
        ((query, key.half(), value, *lengths), "key must be torch.bfloat16, not torch.float16"),
        ((query, key, value[:3], *lengths), r"value must be of shape \[4, 2, 64\], not \[3, 2, 64\]"),
        ((query[..., :32], key, value, *lengths), r"query must be of shape \['any', 'any', 64\]"),
        (
            (query.transpose(0, 1).contiguous().transpose(0, 1), key, value, *lengths),
            "query must be contiguous",
        ),
        ((query, key, value, lengths[0].long(), *lengths[1:]), "cumulative_lengths_q must be torch.int32"),
        ((query.to("meta"), key, value, *lengths), "query must be on cpu, not on meta"),
    ):
        with pytest.raises(ValueError, match=words):
            compiled.attention(*arguments)
