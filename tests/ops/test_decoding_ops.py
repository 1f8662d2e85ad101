"""What decoding alone needs: slots, largest numbers, log-sums; by C and by torch."""

import pytest
import torch

from deltalm_ds import ops
from deltalm_ds.ops.native import kernels


@pytest.fixture(params=["c", "torch"])
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(kernels, "support", lambda *tensors: False)
    return request.param


def attended(queries, keys, values, seen):
    """[sentences, hypotheses, heads, width] the plain way."""
    scores = torch.einsum("sbhw,shkw->sbhk", queries, keys) * queries.shape[-1] ** -0.5
    probabilities = (scores + seen[:, 0, : queries.shape[1], None]).softmax(-1)
    return torch.einsum("sbhk,shkw->sbhw", probabilities, values)


@pytest.mark.parametrize(
    ("width", "num_hypotheses", "seen_rows"), [(16, 3, 3), (20, 2, 5), (64, 4, 1), (5, 1, 1)]
)
def test_slots(way, width, num_hypotheses, seen_rows):
    torch.manual_seed(0)
    num_sentences, num_heads, room, num_slots = 3, 2, 40, 37
    joined = torch.randn(num_sentences * num_hypotheses, 3 * num_heads * width)
    keys, values = torch.randn(2, num_sentences, num_heads, room, width)
    seen = torch.zeros(num_sentences, 1, seen_rows, room)
    seen.masked_fill_(torch.rand(seen.shape) < 0.6, -torch.inf)
    seen[..., 7] = 0
    keys[:, :, num_slots:], values[:, :, num_slots:], seen[..., num_slots:] = torch.nan, torch.nan, torch.nan
    found = ops.attend_slots(joined, keys, values, seen, num_slots)
    queries = joined[:, : num_heads * width].view(num_sentences, num_hypotheses, num_heads, width)
    filled = (tensor[..., :num_slots, :] for tensor in (keys, values))
    expected = attended(queries, *filled, seen[..., :num_slots])
    torch.testing.assert_close(found.view(expected.shape), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("columns", "count"), [(1, 3), (63, 5), (64, 64), (1000, 10)])
def test_largest(way, columns, count):
    torch.manual_seed(0)
    x = torch.randn(7, columns)
    values, places = ops.largest(x, count)
    expected = x.sort(1, descending=True).values[:, :count]
    assert torch.equal(values, expected)
    assert torch.equal(x.gather(1, places), expected)


def test_largest_of_rows_with_too_few(way):
    x = torch.full((2, 100), -torch.inf)
    x[0, 70], x[0, 3] = 1.0, 2.0
    values, places = ops.largest(x, 4)
    assert values.tolist() == [[2.0, 1.0, *[-torch.inf] * 2], [-torch.inf] * 4]
    assert places[0, :2].tolist() == [3, 70]
    assert ((places >= 0) & (places < 100)).all()


def test_log_sums(way):
    torch.manual_seed(0)
    logits = torch.randn(5, 300) * 20 + 100
    torch.testing.assert_close(ops.log_sums(logits), logits.logsumexp(1), rtol=1e-6, atol=0)
