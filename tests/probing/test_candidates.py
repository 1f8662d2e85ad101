"""The readings of weights."""

from __future__ import annotations

import pytest
from model_samples import model

from deltalm_ds.errors import UserError
from deltalm_ds.probing.candidates import feed_forward_orders, sentinel_places


def test_places_of_the_released_table() -> None:
    assert sentinel_places(250_000, 100, 250_104) == [250_001, 250_002, 250_003, 250_004]
    assert sentinel_places(250_000, 103, 250_104) == [250_001]
    with pytest.raises(UserError, match="no room for 104 sentinels"):
        sentinel_places(250_000, 104, 250_104)


def test_orders_exchange_feed_forward_layers_of_the_decoder_alone() -> None:
    parameters = model().state_dict()
    orders = feed_forward_orders(parameters)
    assert orders["as named"] == parameters
    for name, tensor in parameters.items():
        moved = {order: next(n for n, t in found.items() if t is tensor) for order, found in orders.items()}
        other = name.replace(".first_", ".x_").replace(".second_", ".first_").replace(".x_", ".second_")
        assert moved["exchanged"] == other
        assert moved["exchanged but for norms"] == (name if ".norm_" in name else other)
        assert (name != other) == ("decoder.blocks" in name and "feed_forward" in name)
