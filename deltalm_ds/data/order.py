"""The order of training: which item of which source stands at a global position.

Positions come in blocks of BLOCK_SIZE. A block has the same quota of every source: its slots are laid out one
source after the other and then permuted, by a permutation of the block's own. So the samples of a source are
numbered by arithmetic: slot j of its q slots in block b is draw b · q + j. Where the mixture changes, at the
border of a block, a phase with other quotas begins, and the numbers go on from those of the phases before it.
Draw k of a source of n items is the item π(k mod n) of epoch k div n, π being a keyed permutation of that
source and epoch. Nothing is stored, and nothing depends on ranks, workers or where a run was resumed.

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
        quotas: samples of each source in a block, [sources], or [phases, sources] where the mixture changes;
            their sum is the size of a block. A source of no items must have none.
        seed: names the order.
        first_blocks: the block with which each phase begins, [phases], ascending from 0.
    """

    def __init__(
        self,
        names: Sequence[str],
        num_items: Sequence[int],
        quotas: ArrayLike,
        seed: int,
        first_blocks: ArrayLike = (0,),
    ) -> None:
        self.num_items = np.asarray(num_items, dtype=np.int64)
        self.quotas = np.atleast_2d(np.asarray(quotas, dtype=np.int64))
        """[phases, sources]."""
        self.first_blocks = np.asarray(first_blocks, dtype=np.int64)
        """[phases]."""
        if np.any((self.quotas > 0) & (self.num_items < 1)):
            raise ValueError("a source without items has a quota")
        self.block_size = int(self.quotas[0].sum())
        if np.any(self.quotas.sum(axis=1) != self.block_size):
            raise ValueError("blocks of different sizes")
        if self.first_blocks[0] != 0 or np.any(np.diff(self.first_blocks) < 1):
            raise ValueError("phases must begin with block 0 and ascend")
        num_phases, self._num_sources = self.quotas.shape
        ends = np.cumsum(self.quotas, axis=1)
        self._starts = ends - self.quotas
        # One ascending list: a slot of phase p is looked up as p · block size + slot.
        self._ends = (ends + self.block_size * np.arange(num_phases)[:, None]).ravel()
        blocks = np.diff(self.first_blocks)[:, None]
        zeros = np.zeros((1, self._num_sources), dtype=np.int64)
        self._draws_before = np.concatenate([zeros, np.cumsum(blocks * self.quotas[:-1], axis=0)])
        self._block_key = stream_key("block", seed)
        self._source_keys = np.array([stream_key("source", seed, name) for name in names], dtype=np.uint64)

    def locate(self, positions: ArrayLike) -> Location:
        """What stands at the global positions [positions], each 0 or more."""
        positions = np.asarray(positions, dtype=np.int64)
        block, place = np.divmod(positions, self.block_size)
        slot = keyed_permutation(place, self.block_size, numbered_key(self._block_key, block))
        phase = self._phase(block)
        found = np.searchsorted(self._ends, phase * self.block_size + slot, side="right")
        source = found - phase * self._num_sources
        draw = (
            self._draws_before[phase, source]
            + (block - self.first_blocks[phase]) * self.quotas[phase, source]
            + slot
            - self._starts[phase, source]
        )
        epoch, turn = np.divmod(draw, self.num_items[source])
        item = keyed_permutation(turn, self.num_items[source], numbered_key(self._source_keys[source], epoch))
        return Location(source, draw, epoch, item)

    def num_draws(self, end_position: int) -> NDArray[np.int64]:
        """How many samples of every source there are before a position, [sources]."""
        block, rest = divmod(end_position, self.block_size)
        phase = int(self._phase(np.int64(block)))
        whole = self._draws_before[phase] + (block - self.first_blocks[phase]) * self.quotas[phase]
        in_block = self.locate(np.arange(end_position - rest, end_position)).source
        return whole + np.bincount(in_block, minlength=self._num_sources)

    def _phase(self, block: ArrayLike) -> NDArray[np.int64]:
        return np.searchsorted(self.first_blocks, block, side="right") - 1
