"""Who among many measurements stands out."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT", bound=Hashable)


def slow_ones(speeds: Mapping[KeyT, float], least_share: float) -> dict[KeyT, float]:
    """Who is slower than `least_share` of the median, with their share of it.

    The median of an even number is the upper of the two in the middle: of two, the faster one shows what the
    machines can do.
    """
    if not speeds:
        return {}
    median = statistics.median_high(speeds.values())
    return {key: speed / median for key, speed in speeds.items() if speed < least_share * median}


def usual(values: Sequence[ValueT]) -> ValueT:
    """The most frequent of some values; of equally frequent ones, the one that comes first, rank 0's side."""
    return Counter(values).most_common(1)[0][0]


def skewed_ones(
    offsets: Mapping[KeyT, float], uncertainties: Mapping[KeyT, float], most: float
) -> dict[KeyT, float]:
    """Whose clock differs from the median of all by surely more than `most`, with the difference.

    Offsets are against rank 0's clock. The median of an even number is the one in the middle that is nearer
    to rank 0's: of two clocks, neither of which can be known to be right, rank 0's is believed.
    """
    if not offsets:
        return {}
    values = offsets.values()
    median = min(statistics.median_low(values), statistics.median_high(values), key=abs)
    differences = {key: offset - median for key, offset in offsets.items()}
    return {key: found for key, found in differences.items() if abs(found) - uncertainties[key] > most}
