"""Span corruption of items of many sources, a whole step at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.examples import Examples
from deltalm_ds.data.items import ItemReader
from deltalm_ds.data.objectives import SpanCorruption
from deltalm_ds.data.windows import Windows


class CorruptedItems:
    """Reads items and corrupts them, many together. It can be sent to another process.

    Args:
        sources: the items of every source and what corrupts them.
        first_sentinel_id: id of `<mask_0>`.
    """

    def __init__(self, sources: Sequence[tuple[Windows, SpanCorruption]], first_sentinel_id: int) -> None:
        self._reader = ItemReader([windows for windows, _ in sources])
        self._objectives = list(dict.fromkeys(corruption for _, corruption in sources))
        self._objective_of = np.array([self._objectives.index(corruption) for _, corruption in sources])
        self._first_sentinel_id = first_sentinel_id

    def examples(
        self,
        sources: NDArray[np.int64],
        items: NDArray[np.int64],
        stream: int,
        numbers: NDArray[np.int64],
    ) -> Examples:
        """The examples of one or more items, the masks of each named by (stream, its number).

        Args: the sources of the items, the items, and their numbers, [items] each.
        """
        texts = self._reader.read(sources, items)
        if len(self._objectives) == 1:
            return self._objectives[0].corrupt_all(texts, self._first_sentinel_id, stream, numbers)
        objectives = self._objective_of[sources]
        parts = []
        for number, objective in enumerate(self._objectives):
            members = np.flatnonzero(objectives == number)
            if len(members):
                made = objective.corrupt_all(
                    texts.at(members), self._first_sentinel_id, stream, numbers[members]
                )
                parts.append((members, made))
        return Examples.merged(parts)
