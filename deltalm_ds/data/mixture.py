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
    kinds: Sequence[Kind], num_tokens: Sequence[int], monolingual_share: float, language_exponent: float
) -> NDArray[np.float64]:
    """The share of all samples that each source should have.

    Within the monolingual sources and within the pairs the share is proportional to tokens**language_exponent
    (XLM-R's temperature sampling). The monolingual ones together get `monolingual_share` and the pairs the
    rest; where there is only one kind, it gets everything. Sources without tokens get nothing.

    Args: what kind the sources are and how many tokens they have, [sources] each.
    Returns: float64 [sources], the sum is 1.
    Raises: UserError if no source has any tokens.
    """
    tokens = np.asarray(num_tokens, dtype=np.float64)
    monolingual = np.asarray([kind == "monolingual" for kind in kinds], dtype=bool)
    weights = np.zeros(len(tokens))
    weights[tokens > 0] = tokens[tokens > 0] ** language_exponent
    totals = weights[monolingual].sum(), weights[~monolingual].sum()
    if not sum(totals) > 0:
        raise UserError("there are no training tokens: prepare some text")
    if min(totals) > 0:
        weights[monolingual] *= monolingual_share / totals[0]
        weights[~monolingual] *= (1.0 - monolingual_share) / totals[1]
    return weights / weights.sum()


def block_quotas(shares: NDArray[np.float64], block_size: int = BLOCK_SIZE) -> NDArray[np.int64]:
    """Whole numbers of samples of a block nearest to the shares.

    Sources whose part is below one sample get one; the others share the rest by largest remainders (of equal
    remainders, the first source wins).

    Args: shares [sources], not negative.
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
    missing = block_size - int(quotas.sum())
    # Rounded, so that the last bit of a power, which differs between C libraries, does not choose.
    remainders = np.where(sharing, np.round(parts - np.floor(parts), 9), -1.0)
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return quotas
