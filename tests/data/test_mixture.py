from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalm_ds.data.mixture import BLOCK_SIZE, block_quotas, source_shares
from deltalm_ds.errors import UserError


def test_shares_follow_the_exponent_within_each_kind() -> None:
    shares = source_shares(["monolingual", "monolingual", "pairs", "pairs"], [1000, 8000, 64, 1], 0.75, 1 / 3)
    assert shares == pytest.approx([0.75 / 3, 0.75 * 2 / 3, 0.25 * 4 / 5, 0.25 / 5])


@pytest.mark.parametrize("kind", ["monolingual", "pairs"])
@pytest.mark.parametrize("monolingual_share", [0.0, 0.8, 1.0])
def test_the_only_kind_gets_everything(kind: str, monolingual_share: float) -> None:
    other = "pairs" if kind == "monolingual" else "monolingual"
    shares = source_shares([kind, kind, other], [10, 10, 0], monolingual_share, 0.3)  # type: ignore[list-item]
    assert shares == pytest.approx([0.5, 0.5, 0.0])


def test_sources_without_tokens_get_nothing_and_nothing_at_all_is_refused() -> None:
    assert source_shares(["monolingual", "monolingual"], [0, 5], 0.8, 0.0).tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match="no training tokens"):
        source_shares(["monolingual", "pairs"], [0, 0], 0.8, 0.3)
    with pytest.raises(UserError, match="no training tokens"):
        source_shares([], [], 0.8, 0.3)


def test_quotas_are_the_largest_remainders() -> None:
    assert block_quotas(np.array([0.416, 0.334, 0.25]), 10).tolist() == [4, 3, 3]
    assert block_quotas(np.array([1 / 3, 1 / 3, 1 / 3]), 10).tolist() == [4, 3, 3]
    assert block_quotas(np.array([0.5, 0.0, 0.5]), 10).tolist() == [5, 0, 5]


def test_small_sources_get_one_place_and_the_rest_is_shared() -> None:
    assert block_quotas(np.array([1e-9, 0.6, 1e-12, 0.4]), 12).tolist() == [1, 6, 1, 4]
    # giving one place to the first two pushes the third below one
    assert block_quotas(np.array([0.001, 0.001, 0.101, 0.897]), 10).tolist() == [1, 1, 1, 7]
    with pytest.raises(UserError, match="11 sources do not fit"):
        block_quotas(np.full(11, 1 / 11), 10)


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1.0)), min_size=1, max_size=200))
def test_quotas_add_up_and_lie_next_to_the_shares(weights: list[float]) -> None:
    shares = np.array(weights)
    if not shares.any():
        return
    shares /= shares.sum()
    quotas = block_quotas(shares)
    assert quotas.sum() == BLOCK_SIZE
    assert np.array_equal(quotas > 0, shares > 0)
    small = np.count_nonzero((shares > 0) & (quotas == 1))
    assert np.all(np.abs(quotas - shares * BLOCK_SIZE)[quotas > 1] <= 1 + small)
    order = np.argsort(shares, kind="stable")
    assert np.all(np.diff(quotas[order]) >= -1)
