"""The order of training: which item of which source stands at a global position.

Positions come in blocks of BLOCK_SIZE. A block has the same quota of every source: its slots are laid out one
source after the other and then permuted, by a permutation of the block's own. So the samples of a source are
numbered by arithmetic: slot j of its q slots in block b is draw b · q + j. Draw k of a source of n items is
the item π(k mod n) of epoch k div n, π being a keyed permutation of that source and epoch. Nothing is stored,
and nothing depends on ranks, workers or where a run was resumed.

Draws are in ascending order from block to block, and in random order within one: a source that is seen many
times in a block has the epochs of that block mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltalm_ds.data.permutation import keyed_permutation, numbered_key, stream_key


class Location(NamedTuple):
    """What stands at some positions; int64 [positions] each."""

    source: NDArray[np.int64]
    """Number of the source."""
    draw: NDArray[np.int64]
    """Number of the sample among those of its source."""
    epoch: NDArray[np.int64]
    """Number of the pass over that source."""
    item: NDArray[np.int64]
    """The source's item."""


class SampleOrder:
    """The order over some sources. Every item of a source comes once in each of its epochs.

    Args:
        names: unique names of the sources, which key their permutations.
        num_items: items of every source.
        quotas: samples of each source in a block; their sum is the size of a block. A source of no items must
            have none.
        seed: names the order.
    """

    def __init__(
        self, names: Sequence[str], num_items: Sequence[int], quotas: Sequence[int] | NDArray, seed: int
    ) -> None:
        self.num_items = np.asarray(num_items, dtype=np.int64)
        self.quotas = np.asarray(quotas, dtype=np.int64)
        if np.any((self.quotas > 0) & (self.num_items < 1)):
            raise ValueError("a source without items has a quota")
        self.block_size = int(self.quotas.sum())
        self._ends = np.cumsum(self.quotas)
        self._block_key = stream_key("block", seed)
        self._source_keys = np.array([stream_key("source", seed, name) for name in names], dtype=np.uint64)

    def locate(self, positions: ArrayLike) -> Location:
        """What stands at the global positions [positions], each 0 or more."""
        positions = np.asarray(positions, dtype=np.int64)
        block, place = np.divmod(positions, self.block_size)
        slot = keyed_permutation(place, self.block_size, numbered_key(self._block_key, block))
        source = np.searchsorted(self._ends, slot, side="right")
        draw = block * self.quotas[source] + slot - (self._ends - self.quotas)[source]
        epoch, turn = np.divmod(draw, self.num_items[source])
        item = keyed_permutation(turn, self.num_items[source], numbered_key(self._source_keys[source], epoch))
        return Location(source, draw, epoch, item)
