"""What released weights leave open: where the sentinels are, and which feed-forward layer runs first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from deltalm_ds.errors import UserError

Order = Literal["as named", "exchanged", "exchanged but for norms"]
"""Feed-forward layers of the decoder: as the weights name them; the two of each block exchanged; or their
linear layers alone, each LayerNorm staying at its place."""

_FEED_FORWARD = re.compile(r"(decoder\.blocks\.\d+\.)(first|second)(_feed_forward\.)(.*)")
_OTHER = {"first": "second", "second": "first"}


def sentinel_places(num_pieces: int, num_sentinels: int, num_rows: int) -> list[int]:
    """All ids that `<mask_0>` can have in a table of `num_rows` rows, behind a tokenizer's pieces.

    UserError where there is no room for so many sentinels.
    """
    places = list(range(num_pieces + 1, num_rows - num_sentinels + 1))
    if not places:
        raise UserError(
            f"a token table of {num_rows:,} rows has no room for {num_sentinels} sentinels behind the "
            f"tokenizer's {num_pieces:,} pieces: give weights that are only pre-trained, or fewer --sentinels"
        )
    return places


def feed_forward_orders(parameters: Mapping[str, Tensor]) -> dict[Order, dict[str, Tensor]]:
    """A DeltaLM's parameters in every order of its feed-forward layers, sharing all tensors."""
    return {
        "as named": dict(parameters),
        "exchanged": {_exchanged(name): tensor for name, tensor in parameters.items()},
        "exchanged but for norms": {
            name if ".norm_" in name else _exchanged(name): tensor for name, tensor in parameters.items()
        },
    }


def _exchanged(name: str) -> str:
    found = _FEED_FORWARD.fullmatch(name)
    return f"{found[1]}{_OTHER[found[2]]}{found[3]}{found[4]}" if found else name
