"""Which sentences are decoded together."""

from __future__ import annotations

from collections.abc import Sequence


def batches_by_tokens(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Sentence numbers in batches of like lengths, longest first.

    A batch has at most `max_tokens` tokens, counted as sentences times the longest length, or one sentence.
    Sentences of equal length keep their order.
    """
    batches: list[list[int]] = []
    longest = 0
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not batches or (len(batches[-1]) + 1) * longest > max_tokens:
            batches.append([])
            longest = lengths[number]
        batches[-1].append(number)
    return batches
