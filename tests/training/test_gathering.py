"""Weights gathered onto a disk."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed import run_distributed

from deltalm_ds.errors import UserError
from deltalm_ds.training import gathering
from deltalm_ds.training.gathering import GatheredWeights, gather_shares


def test_what_was_put_is_read_and_leaves_no_file(tmp_path: Path) -> None:
    weights = GatheredWeights(tmp_path / "new", {"a": (2, 3), "none": (0, 4), "b": (5,)})
    weights.put("b", 2, torch.tensor([3.0, 4.0, 5.0]))
    weights.put("a", 0, torch.arange(6.0).bfloat16().view(3, 2).T)
    weights.put("b", 0, torch.tensor([1.0, 2.0]))
    assert list(weights) == ["a", "none", "b"]
    assert weights["a"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert weights["b"].tolist() == [1, 2, 3, 4, 5]
    assert weights["none"].shape == (0, 4)
    assert "b" in weights
    assert "c" not in weights
    weights["b"].zero_()
    assert weights["b"].tolist() == [1, 2, 3, 4, 5]
    assert not list((tmp_path / "new").iterdir())


def test_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    weights = GatheredWeights(tmp_path, {"a": (100_000,)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot put the model's weights there.*free some space"):
            weights.put("a", 0, torch.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def gathered(num_elements: int, at_once: int) -> list[float] | None:
    """0, 1, 2, … cut over the processes with ones behind the end; whether others get nothing."""
    from deltalm_ds.training.distributed import join_processes

    join_processes()
    gathering._ELEMENTS_AT_ONCE = at_once
    rank, size = dist.get_rank(), -(-num_elements // dist.get_world_size())
    share = torch.ones(size)
    own = torch.arange(float(num_elements))[rank * size : (rank + 1) * size]
    share[: len(own)] = own
    result = torch.full((num_elements,), -1.0)
    pieces = list(gather_shares(share, num_elements))
    for start, piece in pieces:
        assert (result[start : start + len(piece)] == -1).all()
        result[start : start + len(piece)] = piece
    return result.tolist() if rank == 0 else [float(len(pieces))]


@pytest.mark.parametrize(("num_elements", "at_once"), [(12, 100), (11, 100), (11, 4), (2, 1)])
def test_shares_are_put_together_in_order(num_elements: int, at_once: int) -> None:
    first, *others = run_distributed(gathered, 3, num_elements=num_elements, at_once=at_once)
    assert first.value == list(range(num_elements))
    assert [other.value for other in others] == [[0.0], [0.0]]
