"""The objectives by name: what each cuts from a source as items, and what it makes of an item."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.data.masked import MaskedExample, TokenMasking
from deltalm_ds.data.objectives import Example, SpanCorruption, check_objective
from deltalm_ds.data.one_side import OneSideCorruption
from deltalm_ds.data.pair_items import SinglePairs, cut_each, cut_together
from deltalm_ds.data.translation import translation
from deltalm_ds.data.windows import Items, MonolingualWindows, PairWindows
from deltalm_ds.text.vocabulary import Vocabulary

MonolingualObjective = Literal["span-corruption", "mlm"]
PairObjective = Literal["translation-span-corruption", "translation", "one-side", "tlm"]

OF_AN_ENCODER = frozenset({"mlm", "tlm"})
"""The objectives that an encoder alone is trained on."""

MakeExample = Callable[..., Example | MaskedExample]
"""From an item's tokens and `key=` to its example."""


def build_task(
    name: MonolingualObjective | PairObjective,
    dataset: IndexedDataset,
    vocabulary: Vocabulary,
    *,
    corruption: SpanCorruption,
    masking: TokenMasking,
    max_source_length: int,
    max_target_length: int,
) -> tuple[Items, MakeExample]:
    """The items of a dataset for an objective, and what makes an example of one; both can be pickled.

    UserError where the objective needs more sentinels, or longer targets, than there are.
    """
    limits = (max_source_length, max_target_length, vocabulary.num_sentinels)
    shown_name, rows = name.replace("-", "_"), vocabulary.num_rows
    if name == "translation":
        kept = partial(cut_each, max_source=max_source_length, max_target=max_target_length)
        return SinglePairs(dataset, kept, rows), translation
    if name == "one-side":
        one_side = OneSideCorruption(corruption)
        one_side.check(shown_name, *limits)
        kept = partial(cut_together, capacity=one_side.capacity(max_source_length))
        make = partial(one_side.corrupt, first_sentinel_id=vocabulary.first_sentinel_id)
        return SinglePairs(dataset, kept, rows), make
    if name in OF_AN_ENCODER:
        window_length = capacity = max_source_length
        make_example: MakeExample = partial(masking.mask, vocabulary=vocabulary)
    else:
        check_objective(corruption, shown_name, *limits)
        window_length, capacity = corruption.window_length(max_source_length), corruption.capacity(*limits)
        make_example = partial(corruption.corrupt, first_sentinel_id=vocabulary.first_sentinel_id)
    if name in ("span-corruption", "mlm"):
        return MonolingualWindows(dataset, window_length, rows), make_example
    return PairWindows(dataset, window_length, capacity, rows), make_example
