"""What looks wrong in outputs."""

from __future__ import annotations

import pytest

from deltalm_ds.decoding.remarks import Counts, ends_in_repetition, odd_lengths


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([7] * 8, True),
        ([7] * 7, False),
        ([1, 2, 3, *[4, 5] * 4], True),
        ([*[4, 5] * 3, 4, 6], False),
        ([1, 2, 3, *range(8), *range(8), *range(8), *range(8)], True),
        (list(range(9)) * 4, False),
        ([*[7] * 20, 1], False),
        ([], False),
    ],
)
def test_repetition(tokens: list[int], expected: bool) -> None:
    assert ends_in_repetition(tokens) is expected


def test_odd_lengths() -> None:
    """Against the usual ratio of these lines, here a half, and only where there is some length."""
    sources = [20] * 18 + [20, 40, 4]
    targets = [10] * 18 + [40, 5, 8]
    assert odd_lengths(sources, targets) == [18, 19]
    assert odd_lengths(sources[2:], targets[2:]) == []


def test_counts_add_up() -> None:
    counts = Counts(num_lines=3, num_sentences=2, num_tokens=9)
    counts.mark("cut", 12)
    other = Counts(num_lines=1, num_sentences=1, num_in_script=1)
    other.mark("cut", 4)
    other.mark("cut", 5)
    other.mark("empty", 7)
    counts.add(other)
    assert (counts.num_lines, counts.num_sentences, counts.num_tokens, counts.num_in_script) == (4, 3, 9, 1)
    cut, empty = counts.warnings()
    assert cut.endswith(": 3 of 3, the first in line 4")
    assert empty == "outputs without text: 1 of 3, the first in line 7"
    assert Counts(**counts.to_json()) == counts
