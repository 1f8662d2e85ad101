"""Texts and training examples, many of them in one array: what batches are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.native import functions as native
from deltalm_ds.data.native.library import library


class Example(NamedTuple):
    """What a model is trained on; int32 each."""

    source: NDArray[np.int32]
    """[source] tokens that the encoder reads."""
    decoder_input: NDArray[np.int32]
    """[target] tokens that the decoder reads."""
    labels: NDArray[np.int32]
    """[target] tokens that it is to predict."""


class Texts(NamedTuple):
    """Texts as pieces of one array."""

    tokens: NDArray[np.int32]
    """All tokens, and room for `native.TOKENS_BEYOND` more at the end, of any value."""
    starts: NDArray[np.int64]
    """Where each text begins, [texts]."""
    lengths: NDArray[np.int64]
    """Its tokens, [texts]."""

    @classmethod
    def of(cls, texts: Sequence[NDArray[np.int32]]) -> Texts:
        """Some texts [tokens each]."""
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        room = np.zeros(native.TOKENS_BEYOND, dtype=np.int32)
        return cls(np.concatenate([*texts, room], dtype=np.int32), np.cumsum(lengths) - lengths, lengths)

    def at(self, members: NDArray[np.intp]) -> Texts:
        """Those of these numbers."""
        return Texts(self.tokens, self.starts[members], self.lengths[members])

    def text(self, number: int) -> NDArray[np.int32]:
        """The tokens of one text."""
        return self.tokens[self.starts[number] : self.starts[number] + self.lengths[number]]


@dataclass(frozen=True)
class Examples:
    """Examples as pieces of one array. Decoder input and labels, which are equally long, may overlap."""

    tokens: NDArray[np.int32]
    """What the pieces are pieces of."""
    places: NDArray[np.int64]
    """[5, examples]: where sources begin, their lengths, where decoder inputs begin, where labels begin, and
    the lengths of both. C-contiguous."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Examples:
        """Some examples."""
        lengths = np.array([[len(part) for part in example] for example in examples], dtype=np.int64)
        starts = (np.cumsum(lengths) - lengths.ravel()).reshape(-1, 3).T
        places = np.stack([starts[0], lengths[:, 0], starts[1], starts[2], lengths[:, 1]])
        return cls(np.concatenate(list(chain.from_iterable(examples)), dtype=np.int32), places)

    @classmethod
    def merged(cls, parts: Sequence[tuple[NDArray[np.intp], Examples]]) -> Examples:
        """Examples of several parts in one order; every part says which numbers its examples have in it."""
        if len(parts) == 1:
            return parts[0][1]
        places = np.empty((5, sum(len(numbers) for numbers, _ in parts)), dtype=np.int64)
        offset = 0
        for numbers, part in parts:
            places[:, numbers] = part.places + np.array([[offset], [0], [offset], [offset], [0]])
            offset += len(part.tokens)
        return cls(np.concatenate([part.tokens for _, part in parts]), places)

    def __len__(self) -> int:
        return self.places.shape[1]

    @property
    def source_lengths(self) -> NDArray[np.int64]:
        """Tokens of every source, [examples]."""
        return self.places[1]

    @property
    def target_lengths(self) -> NDArray[np.int64]:
        """Tokens of every decoder input, and labels, [examples]."""
        return self.places[4]

    def at(self, members: NDArray[np.bool_]) -> Examples:
        """Those that are chosen, [examples]."""
        return Examples(self.tokens, np.ascontiguousarray(self.places[:, members]))

    def example(self, number: int) -> Example:
        """One of them, as views."""
        source, source_length, decoder_input, labels, length = self.places[:, number].tolist()
        return Example(
            self.tokens[source : source + source_length],
            self.tokens[decoder_input : decoder_input + length],
            self.tokens[labels : labels + length],
        )

    def joined(
        self, start: int, end: int, num_source: int, num_target: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Sources [num_source], decoder inputs and labels [num_target] of examples start .. end - 1."""
        if library() is not None:
            return native.join(self.tokens, self.places, start, end, num_source, num_target)
        examples = [self.example(number) for number in range(start, end)]
        source, decoder_input, labels = (
            np.concatenate(parts, dtype=np.int64) for parts in zip(*examples, strict=True)
        )
        return source, decoder_input, labels
