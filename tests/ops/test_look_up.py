"""The tied table's look-up: values, and one gradient for both of its uses."""

import pytest
import torch

from deltalm_ds import ops

TOKENS = torch.tensor([3, 1, 3, 3, 7])


def random_table():
    return torch.randn(9, 4, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("uses", ["rows", "table", "both"])
def test_gradient_of_either_use_and_of_both(uses):
    table = random_table()
    for_logits, for_rows = torch.randn(5, 9).double(), torch.randn(5, 4).double()
    rows, same = ops.look_up(TOKENS, table)
    assert torch.equal(rows, table[TOKENS])
    assert torch.equal(same, table)

    def loss(rows, table):
        on_rows, on_table = (rows * for_rows).sum(), ((rows.detach() @ table.t()) * for_logits).sum()
        return {"rows": on_rows, "table": on_table, "both": on_rows + on_table}[uses]

    (ours,) = torch.autograd.grad(loss(rows, same), table)
    (expected,) = torch.autograd.grad(loss(table[TOKENS], table), table)
    torch.testing.assert_close(ours, expected)


def test_equal_tokens_are_summed_in_fp32():
    # One by one in bf16, 1 + 1 + … stops growing at 256.
    table = torch.zeros(3, 2, dtype=torch.bfloat16, requires_grad=True)
    rows, _ = ops.look_up(torch.ones(512, dtype=torch.int64), table)
    rows.sum().backward()
    assert table.grad.tolist() == [[0, 0], [512, 512], [0, 0]]


def test_the_tables_gradient_is_used_in_place():
    table = random_table()
    handed_over = torch.ones(9, 4, dtype=torch.float64)

    class Use(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows, table):
            return rows.sum() + table.sum()

        @staticmethod
        def backward(ctx, grad):
            return torch.ones(5, 4, dtype=torch.float64), handed_over

    Use.apply(*ops.look_up(TOKENS, table)).backward()
    assert table.grad[:, 0].tolist() == [1, 2, 1, 4, 1, 1, 1, 2, 1]
    assert torch.equal(handed_over, table.grad)


def test_frozen_table():
    rows, _ = ops.look_up(TOKENS, random_table().detach())
    assert not rows.requires_grad
