from __future__ import annotations

import itertools
from types import SimpleNamespace
from unittest import mock

import torch

from deltalm_ds.diagnosing.product import measure_product

CPU = torch.device("cpu")


def test_operations_by_the_lower_quartile_of_the_times() -> None:
    """Eight products of 1, 1, 1, 1, 5, 5, 5, 5 seconds, after one that does not count."""
    lengths = [100, 5, 1, 5, 1, 5, 1, 5, 1]
    readings = itertools.chain.from_iterable(
        (1000 * n, 1000 * n + length) for n, length in enumerate(lengths)
    )
    monotonic = itertools.chain([0], [1] * 3, itertools.repeat(99))
    clock = SimpleNamespace(perf_counter=lambda: next(readings), monotonic=lambda: next(monotonic))
    with mock.patch("deltalm_ds.diagnosing.product.time", clock), mock.patch("torch.mm") as product:
        speed = measure_product(CPU, 10)
    assert product.call_count == 1 + 8
    assert speed == 2 * 1024**3 / 1


def test_the_two_matrices_are_multiplied() -> None:
    with mock.patch("torch.mm", wraps=torch.mm) as product:
        assert measure_product(CPU, 0.0) > 0
    left, right = product.call_args.args
    torch.testing.assert_close(product.call_args.kwargs["out"], left @ right)
    assert left.shape == right.shape == (1024, 1024)
