from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from deltalm_ds.data.permutation import LARGEST_SIZE, keyed_permutation, numbered_key, stream_key


def chi_square_deviations(counts: np.ndarray, expected: float) -> float:
    """How many standard deviations the chi-square statistic lies from its mean."""
    freedom = counts.size - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1, stream_key("some", 1)])
def test_it_is_a_bijection_of_every_size(key: int) -> None:
    for size in [*range(1, 130), 1000, 4095, 65_536, 65_537, 99_999]:
        assert np.array_equal(np.sort(keyed_permutation(np.arange(size), size, key)), np.arange(size))


def test_numbers_and_arrays_of_sizes_and_keys_agree() -> None:
    sizes = np.array([1, 2, 7, 65_536, 10**10, LARGEST_SIZE])
    keys = np.array([stream_key(size) for size in sizes.tolist()], dtype=np.uint64)
    together = keyed_permutation((sizes - 1)[None], sizes, keys)
    assert together.shape == (1, 6)
    alone = [
        int(keyed_permutation(size - 1, size, key))
        for size, key in zip(sizes.tolist(), keys.tolist(), strict=True)
    ]
    assert together[0].tolist() == alone


def test_it_is_the_same_for_ever() -> None:
    assert keyed_permutation([0, 1, 2], 10**10, 12345).tolist() == [451899573, 8506687160, 5893824369]
    assert stream_key("block", 1) == 6565620020163288230
    assert int(numbered_key(1, 2)) == 17474652204475260503


@pytest.mark.parametrize("size", [10**10, 10**10 + 19, LARGEST_SIZE, 3_000_017])
def test_large_sizes_are_spread_evenly_and_without_correlation(size: int) -> None:
    number = 200_000
    indices = np.arange(size - number, size)
    images = keyed_permutation(indices, size, 7)
    assert images.min() >= 0
    assert images.max() < size
    assert np.unique(images).size == number
    shares = images / size
    assert abs(chi_square_deviations(np.histogram(shares, 1000, (0, 1))[0], number / 1000)) < 4
    for lag in (1, 2, 256, 65_536):
        assert abs(np.corrcoef(shares[lag:], shares[:-lag])[0, 1]) < 4 / np.sqrt(number)
    # the low digits too, where a weak mixture of the two halves would show
    assert abs(chi_square_deviations(np.bincount(images % 1009, minlength=1009), number / 1009)) < 4
    pairs = (images[1:] % 31) * 31 + images[:-1] % 31
    assert abs(chi_square_deviations(np.bincount(pairs, minlength=961), number / 961)) < 4


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_all_orders_of_a_few_items_are_equally_likely(size: int) -> None:
    orders = list(permutations(range(size)))
    expected = 100
    keys = np.array([stream_key("order", i) for i in range(expected * len(orders))], dtype=np.uint64)
    images = keyed_permutation(np.arange(size), size, keys[:, None])
    digits = size ** np.arange(size)
    place = {int(np.array(order) @ digits): number for number, order in enumerate(orders)}
    numbers = [place[code] for code in (images @ digits).tolist()]
    assert chi_square_deviations(np.bincount(numbers, minlength=len(orders)), expected) < 4


@pytest.mark.parametrize("size", [65_536, 10**10])
def test_every_bit_of_the_key_matters(size: int) -> None:
    indices = np.arange(2000)
    key = stream_key("bits")
    images = keyed_permutation(indices, size, key)
    for bit in range(64):
        others = keyed_permutation(indices, size, key ^ (1 << bit))
        assert np.count_nonzero(others == images) < 10
        assert abs(np.corrcoef(images, others)[0, 1]) < 0.1


def test_keys_differ_with_every_part_and_number() -> None:
    parts = [("a", "b"), ("ab",), ("b", "a"), ("a", "b", 0), ("a", "b", 1), (1,), ("1",), (2**63,)]
    assert len({stream_key(*names) for names in parts}) == len(parts)
    family = numbered_key(np.arange(100)[:, None], np.arange(100))
    assert np.unique(family).size == 10_000


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 5), (5, 5), (0, LARGEST_SIZE + 1)])
def test_what_is_out_of_range_is_refused(index: int, size: int) -> None:
    with pytest.raises(ValueError, match=r"range|must lie"):
        keyed_permutation(index, size, 1)
