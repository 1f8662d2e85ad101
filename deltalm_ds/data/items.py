"""Items of several sources, read together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.examples import Texts
from deltalm_ds.data.native import functions as native
from deltalm_ds.data.native.library import library
from deltalm_ds.data.windows import Windows


class ItemReader:
    """Reads items as `Windows.tokens` does, many at once. It can be sent to another process.

    Args:
        windows: the sources.
    """

    def __init__(self, windows: Sequence[Windows]) -> None:
        self._windows = list(windows)
        self._longest = np.array([source.longest for source in windows], dtype=np.int64)
        self._sources = np.array([source.members() for source in windows], dtype=np.int64).T

    def __reduce__(self) -> tuple[Any, ...]:
        return ItemReader, (self._windows,)  # addresses are this process's

    def read(self, sources: NDArray[np.int64], items: NDArray[np.int64]) -> Texts:
        """The texts of some items [items], of these sources [items].

        UserError, with file and offset, of an id that the vocabulary does not have or of a damaged index.
        """
        if library() is None:
            located = zip(sources.tolist(), items.tolist(), strict=True)
            return Texts.of([self._windows[source].tokens(item) for source, item in located])
        most_tokens = int(self._longest[sources].sum())
        tokens, lengths, num_read = native.read_items(self._sources[:, sources], items, most_tokens)
        if num_read < len(items):
            self._windows[sources[num_read]].tokens(int(items[num_read]))  # says what is wrong
            raise AssertionError(f"item {items[num_read]} of source {sources[num_read]} was not read")
        return Texts(tokens, np.cumsum(lengths) - lengths, lengths)
