"""Random choices that are a pure function of a seed, a label and a position."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

ItemT = TypeVar("ItemT")


class Draws:
    """A stream of choices for one text.

    The k-th number is the first 64 bits of BLAKE2b of "seed/label/position/k": the same on every machine and
    in every Python version, which the methods of the `random` module do not promise.
    """

    def __init__(self, seed: int, label: str, position: int) -> None:
        self._name = f"{seed}/{label}/{position}"
        self._num_drawn = 0

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        digest = hashlib.blake2b(f"{self._name}/{self._num_drawn}".encode(), digest_size=8).digest()
        self._num_drawn += 1
        return int.from_bytes(digest, "little") % bound

    def chance(self, percent: int) -> bool:
        """True with a probability of `percent` in a hundred."""
        return self.below(100) < percent

    def choice(self, items: Sequence[ItemT]) -> ItemT:
        """One of the items, each equally likely."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[ItemT], count: int) -> list[ItemT]:
        """`count` different places of `items`, in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def weighted(self, weights: dict[ItemT, int]) -> ItemT:
        """One of the keys, each with a probability proportional to its weight."""
        rest = self.below(sum(weights.values()))
        for item, weight in weights.items():
            if rest < weight:
                return item
            rest -= weight
        raise AssertionError("below() stays under the sum of the weights")
