"""How many samples of a block come from each source."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.manifest import Kind
from deltalm_ds.errors import UserError

BLOCK_SIZE = 65_536
"""Positions of one block of the order; every block holds every source by the same exact quota."""


def source_shares(
    kinds: Sequence[Kind],
    sizes: Sequence[int],
    monolingual_share: float,
    language_exponent: float,
    weights: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """The share of all samples that each source should have.

    Within the monolingual sources and within the pairs the share is proportional to weight ·
    size**language_exponent (XLM-R's temperature sampling). The monolingual ones together get
    `monolingual_share` and the pairs the rest; where there is only one kind, it gets everything. Sources
    of size or weight 0 get nothing.

    Args: what kind the sources are, their sizes in tokens or items, and weights (1 each), [sources] each.
    Returns: float64 [sources], the sum is 1.
    Raises: UserError if no source has any size.
    """
    amounts = np.asarray(sizes, dtype=np.float64)
    monolingual = np.asarray([kind == "monolingual" for kind in kinds], dtype=bool)
    parts = np.zeros(len(amounts))
    parts[amounts > 0] = amounts[amounts > 0] ** language_exponent
    if weights is not None:
        parts *= np.asarray(weights)
    totals = parts[monolingual].sum(), parts[~monolingual].sum()
    if not sum(totals) > 0:
        raise UserError("there are no training tokens: prepare some text, or raise the sources' weights")
    if min(totals) > 0:
        parts[monolingual] *= monolingual_share / totals[0]
        parts[~monolingual] *= (1.0 - monolingual_share) / totals[1]
    return parts / parts.sum()


def cap_shares(
    kinds: Sequence[Kind], shares: NDArray[np.float64], limits: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The shares nearest to `shares` in proportion that are within `limits`, [sources] each.

    What a source may not have goes to the others of its kind in proportion to their shares, and where all of
    a kind are full, to the other kind. ValueError if all sources together may not have everything.
    """
    monolingual = np.asarray([kind == "monolingual" for kind in kinds], dtype=bool)
    used = shares > 0
    groups = [group for group in (monolingual & used, ~monolingual & used) if group.any()]
    if limits[used].sum() < 1:
        raise ValueError("the limits add up to less than everything")
    totals = [float(shares[group].sum()) for group in groups]
    if len(groups) == 2:
        most = [float(limits[group].sum()) for group in groups]
        for here, there in ((0, 1), (1, 0)):
            surplus = max(totals[here] - most[here], 0.0)
            totals[here], totals[there] = totals[here] - surplus, totals[there] + surplus
    capped = np.zeros(len(shares))
    for group, total in zip(groups, totals, strict=True):
        capped[group] = _filled(shares[group], limits[group], total)
    return capped


def _filled(shares: NDArray[np.float64], limits: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """min(level · share, limit), the level being such that the sum is `total`."""
    order = np.argsort(limits / shares, kind="stable")  # those that are full first come first
    full = np.concatenate([[0.0], np.cumsum(limits[order])])[:-1]
    free = np.cumsum(shares[order][::-1])[::-1]
    levels = (total - full) / free
    fits = np.flatnonzero(levels * shares[order] <= limits[order])
    level = levels[fits[0]] if len(fits) else np.inf
    return np.minimum(level * shares, limits)


def block_quotas(
    shares: NDArray[np.float64],
    block_size: int = BLOCK_SIZE,
    limits: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Whole numbers of samples of a block nearest to the shares.

    Sources whose part is below one sample get one; the others share the rest by largest remainders (of equal
    remainders, the first source wins).

    Args:
        shares: [sources], not negative.
        limits: [sources], the most that each may get by rounding up.
    Returns: int64 [sources], the sum is block_size, at least 1 for every share above zero.
    Raises: UserError if there are more sources than places.
    """
    if np.count_nonzero(shares) > block_size:
        raise UserError(
            f"{np.count_nonzero(shares)} sources do not fit a block of {block_size} samples: join some"
        )
    quotas = (shares > 0).astype(np.int64)
    sharing = shares > 0
    while True:
        places = block_size - quotas[~sharing].sum()
        parts = np.where(sharing, shares, 0.0) * (places / shares[sharing].sum())
        too_small = sharing & (parts < 1)
        if not too_small.any():
            break
        sharing &= ~too_small
    quotas[sharing] = np.floor(parts[sharing]).astype(np.int64)
    # Rounded, so that the last bit of a power, which differs between C libraries, does not choose.
    remainders = np.where(sharing, np.round(parts - np.floor(parts), 9), -1.0)
    if limits is not None:
        remainders = np.where(quotas < limits, remainders, -2.0)
    missing = block_size - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return quotas
