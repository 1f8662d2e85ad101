"""Numbers for the places where dropout acts, and the dropout of a batch at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.ops import Dropout


class Site(IntEnum):
    """Places within a layer. Changing a number changes every run's dropout."""

    EMBEDDING = 0
    SELF_ATTENTION = 1
    FIRST_FEED_FORWARD = 2
    CROSS_ATTENTION = 3
    SECOND_FEED_FORWARD = 4


ACTIVATION_OFFSET = 8
"""Added to a feed-forward's site for the dropout after its GELU."""
PROBABILITY_OFFSET = 16
"""Added to an attention's site for the dropout of its probabilities."""


@dataclass(frozen=True)
class DropoutState:
    """What the run contributes to the dropout bits."""

    seed: int
    """The run's seed, in [0, 2^32)."""
    step: int
    """The optimizer step, in [0, 2^32)."""

    def __post_init__(self) -> None:
        if not (0 <= self.seed < 2**32 and 0 <= self.step < 2**32):
            raise UserError(f"seed {self.seed} and step {self.step} must lie in [0, 2^32)")


@dataclass(frozen=True)
class BatchDropout:
    """The dropout of one packed batch; counters of its tokens are computed once for all sites."""

    state: DropoutState
    sample_of_token: Tensor
    """[tokens] int64."""
    index_of_token: Tensor
    """[tokens] int64."""

    @classmethod
    def of(cls, state: DropoutState | None, packed: PackedTokens) -> BatchDropout | None:
        """None without a state: no dropout."""
        if state is None:
            return None
        return cls(state, packed.sample_ids[packed.sequence_of_token], packed.index_in_sequence)

    def at(self, probability: float, layer: int, site: int) -> Dropout | None:
        """The dropout of one site, or None where nothing is dropped."""
        if not probability:
            return None
        return Dropout(
            probability=probability,
            seed=self.state.seed,
            step=self.state.step,
            layer=layer,
            site=site,
            sample_of_token=self.sample_of_token,
            index_of_token=self.index_of_token,
        )
