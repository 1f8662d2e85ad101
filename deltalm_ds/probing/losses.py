"""Losses of span corruption on windows of text, under every reading of the weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deltalm_ds import ops
from deltalm_ds.data.examples import Example
from deltalm_ds.data.objectives import CorruptionForm, SpanCorruption
from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.probing.candidates import Order
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

_TOKENS_AT_ONCE = 2048

Losses = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read the weights, and how well it fits."""

    first_sentinel_id: int
    """Id of `<mask_0>`."""
    order: Order
    """Of the feed-forward layers."""
    form: CorruptionForm
    """Of the text's corruption."""
    sums: Losses
    """[samples, 2]: summed loss in nats, of all labels and of those that are pieces of text."""
    counts: Losses
    """[samples, 2]: how many labels that are."""

    @property
    def loss(self) -> float:
        """Nats per label. Comparable within a form, for labels differ between the two."""
        return float(self.sums[:, 0].sum() / self.counts[:, 0].sum())

    @property
    def text_loss(self) -> float:
        """Nats per label that is a piece of text."""
        return float(self.sums[:, 1].sum() / self.counts[:, 1].sum())


def text_windows(
    tokenizer: Tokenizer, lines: Iterable[str], num_windows: int, length: int
) -> list[NDArray[np.int32]]:
    """The first windows `<s> line </s> line </s> …` of a text, each [length] ids.

    UserError for a text without one whole window.
    """
    windows: list[NDArray[np.int32]] = []
    window = [Vocabulary.BOS]
    for line in lines:
        window += [*tokenizer.encode(line.strip()), Vocabulary.EOS]
        if len(window) >= length:
            windows.append(np.array(window[:length], dtype=np.int32))
            window = [Vocabulary.BOS]
        if len(windows) == num_windows:
            break
    if not windows:
        raise UserError(
            f"the text has less than one window of {length} tokens: give more, or a lower --window"
        )
    return windows


def measure(
    models: dict[Order, DeltaLM],
    windows: Sequence[NDArray[np.int32]],
    places: Sequence[int],
    objectives: Sequence[SpanCorruption],
    num_pieces: int,
    seed: int,
) -> Iterator[Reading]:
    """The losses of each reading, one after the other.

    Masks follow from the seed and a window's number, so that the readings of one form differ in nothing else.
    The encoder's output is shared by the orders, which concern the decoder alone.
    """
    for objective in objectives:
        for first_sentinel_id in places:
            examples = [
                objective.corrupt(window, first_sentinel_id, (seed, number))
                for number, window in enumerate(windows)
            ]
            at_once = max(_TOKENS_AT_ONCE // len(windows[0]), 1)
            parts = [
                _losses(models, examples[start : start + at_once], num_pieces)
                for start in range(0, len(examples), at_once)
            ]
            for order in models:
                sums, counts = (np.concatenate([part[order][which] for part in parts]) for which in range(2))
                yield Reading(
                    first_sentinel_id=first_sentinel_id,
                    order=order,
                    form=objective.form,
                    sums=sums,
                    counts=counts,
                )


@torch.inference_mode()
def _losses(
    models: dict[Order, DeltaLM], examples: Sequence[Example], num_pieces: int
) -> dict[Order, tuple[Losses, Losses]]:
    """By order: summed losses and numbers of labels, [examples, 2] each."""
    source = PackedTokens.from_sequences([example.source.tolist() for example in examples])
    target = PackedTokens.from_sequences([example.decoder_input.tolist() for example in examples])
    labels = torch.tensor(np.concatenate([example.labels for example in examples]), dtype=torch.int64)
    is_text = ((labels >= Vocabulary.UNK) & (labels <= num_pieces)).double().numpy()
    ends = target.cumulative_lengths.numpy()[:-1]
    counted = np.stack([np.ones_like(is_text), is_text], axis=1)
    encoder_output = next(iter(models.values())).encode(source)
    found: dict[Order, tuple[Losses, Losses]] = {}
    for order, model in models.items():
        hidden = model.decode(target, encoder_output, source)
        losses = model.embedding(ops.linear_cross_entropy, hidden, labels).token_negative_log_likelihood
        weighted = losses.double().numpy()[:, None] * counted
        found[order] = np.add.reduceat(weighted, ends, axis=0), np.add.reduceat(counted, ends, axis=0)
    return found
