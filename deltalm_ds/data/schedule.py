"""What the mixture of a run is, from its options: exponent, ratio, weights, a cap, and changes on the way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.corpus import Source
from deltalm_ds.data.mixture import BLOCK_SIZE, block_quotas, cap_shares, source_shares
from deltalm_ds.errors import UserError

_SHARES = ("language_exponent", "monolingual_share")


@dataclass(frozen=True)
class RunLength:
    """How many samples a run has."""

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Samples of a step."""

    @property
    def num_samples(self) -> int:
        """Samples of the run."""
        return self.steps * self.batch_size


@dataclass(frozen=True)
class Mixture:
    """What the sources' shares follow from."""

    language_exponent: float
    """Shares are proportional to tokens to this power."""
    monolingual_share: float
    """Share of monolingual samples where there are pairs too."""
    weights: Mapping[str, float]
    """Factors of the shares of sources, 1 for those that are not named."""

    def changed(self, name: str, value: float) -> Mixture:
        """The same with another value of one of _SHARES, or of a source's weight."""
        if name == "language_exponent":
            return dataclasses.replace(self, language_exponent=value)
        if name == "monolingual_share":
            return dataclasses.replace(self, monolingual_share=value)
        return dataclasses.replace(self, weights={**self.weights, name: value})


@dataclass(frozen=True)
class OrderForm:
    """How large blocks are, and what the sizes of sources are counted in."""

    block_size: int = BLOCK_SIZE
    """Positions of a block. With as many as there are items, and shares by items, a block is an epoch."""
    by_items: bool = False
    """Shares follow from the sources' items instead of their tokens."""


PRETRAINING = OrderForm()


@dataclass(frozen=True)
class Change:
    """A change of the mixture in the course of a run."""

    step: int
    """The first optimizer step it is for."""
    name: str
    """One of _SHARES, or a source."""
    value: float
    """What it becomes."""


@dataclass(frozen=True)
class Phases:
    """The quotas of a run."""

    first_blocks: NDArray[np.int64]
    """[phases]: the block with which each begins."""
    quotas: NDArray[np.int64]
    """[phases, sources]."""
    capped: NDArray[np.bool_]
    """[phases, sources]: which have fewer samples than without the cap."""


def parse_weight(text: str) -> tuple[str, float]:
    """`fr=2` as a name and a factor; UserError for anything else."""
    name, sign, value = text.rpartition("=")
    weight = _number(value)
    if not (name and sign) or weight is None or not 0 <= weight < np.inf:
        raise UserError(f"a source's weight is written as fr=2, not {text!r}")
    return name, weight


def parse_change(text: str) -> Change:
    """`400000:language-exponent=0.7`, `400000:fr=2`; UserError for anything else."""
    step, colon, rest = text.partition(":")
    name, sign, value = rest.rpartition("=")
    number = _number(value)
    if not (colon and name and sign) or not step.isdecimal() or number is None:
        raise UserError(
            f"a change of the mixture is written as 400000:language-exponent=0.7 or 400000:fr=2, not {text!r}"
        )
    field = name.replace("-", "_")
    name = field if field in _SHARES else name
    if not 0 <= number <= (1 if name in _SHARES else np.inf) or number == np.inf:
        raise UserError(f"{text}: {name} cannot be {value}")
    return Change(int(step), name, number)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def plan_phases(
    sources: Sequence[Source],
    num_items: Sequence[int],
    mixture: Mixture,
    changes: Sequence[Change],
    max_epochs: float | None,
    run: RunLength | None,
    form: OrderForm = PRETRAINING,
) -> Phases:
    """The quotas of every phase of a run.

    A change takes effect with the first block that begins at its step or later. Under a cap no source gets
    more than `max_epochs` epochs over the run, except that none gets less than one sample a block.

    Args:
        sources: the training sources.
        num_items: items of each.
        mixture: what the run begins with.
        changes: in any order.
        max_epochs: the cap; None for none.
        run: its length, needed for changes and a cap.
        form: the blocks'.
    Raises: UserError for a source that is not there, and where the cap leaves too few samples.
    """
    names = [source.name for source in sources]
    named = [*mixture.weights, *(change.name for change in changes if change.name not in _SHARES)]
    if unknown := sorted(set(named) - set(names)):
        raise UserError(f"the data have no source {unknown[0]!r} to weigh; they have {', '.join(names)}")
    if run is None and (changes or max_epochs is not None):
        raise ValueError("changes of the mixture and a cap on repeats need the length of the run")
    mixtures = {0: mixture}
    for change in sorted(changes, key=lambda change: change.step):
        assert run is not None
        block = -(-change.step * run.batch_size // form.block_size)
        last = mixtures[max(mixtures)]
        mixtures[block] = last.changed(change.name, change.value)
    limits = None
    if max_epochs is not None:
        assert run is not None
        limits = _limits(num_items, max_epochs, run, form.block_size)
    quotas, capped = [], []
    sizes = num_items if form.by_items else [source.num_tokens for source in sources]
    for current in mixtures.values():
        shares = _shares(sources, sizes, current)
        free = block_quotas(shares, form.block_size)
        if limits is not None:
            _check_limits(shares, limits, num_items, max_epochs, run, form.block_size)
            shares = cap_shares([source.kind for source in sources], shares, limits / form.block_size)
            quotas.append(block_quotas(shares, form.block_size, limits))
        else:
            quotas.append(free)
        capped.append(quotas[-1] < free)
    return Phases(np.array(list(mixtures)), np.array(quotas), np.array(capped))


def _shares(sources: Sequence[Source], sizes: Sequence[int], mixture: Mixture) -> NDArray[np.float64]:
    return source_shares(
        [source.kind for source in sources],
        sizes,
        mixture.monolingual_share,
        mixture.language_exponent,
        [source.weight * mixture.weights.get(source.name, 1.0) for source in sources],
    )


def _limits(
    num_items: Sequence[int], max_epochs: float, run: RunLength, block_size: int
) -> NDArray[np.int64]:
    """The most samples of a block that each source may have, at least one."""
    num_blocks = run.num_samples / block_size
    most = np.floor(max_epochs * np.asarray(num_items, dtype=np.float64) / num_blocks)
    return np.clip(most, 1, block_size).astype(np.int64)


def _check_limits(
    shares: NDArray[np.float64],
    limits: NDArray[np.int64],
    num_items: Sequence[int],
    max_epochs: float | None,
    run: RunLength | None,
    block_size: int,
) -> None:
    """UserError if the sources that are drawn from cannot fill a block within the limits."""
    used = shares > 0
    if limits[used].sum() < block_size:
        assert run is not None
        items = int(np.asarray(num_items)[used].sum())
        raise UserError(
            f"--max-epochs {max_epochs:g} is too low: the run takes {run.num_samples:,} samples, and one "
            f"epoch of all sources is {items:,}; raise it to {math.ceil(run.num_samples / items) + 1:,}, "
            "shorten the run, or add text"
        )
