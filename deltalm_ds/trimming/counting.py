"""How often each piece of a tokenizer occurs in given text, and whether another tokenizer cuts it alike."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.downstream.encoding import SEPARATOR
from deltalm_ds.errors import UserError
from deltalm_ds.text.tokenizer import Tokenizer

_LINES_AT_ONCE = 1000


@dataclass(frozen=True)
class TextCounts:
    """What is in a text."""

    pieces: NDArray[np.int64]
    """[pieces of the tokenizer]: how often each occurs, by its SentencePiece number."""
    num_lines: int
    """Lines that are not blank."""
    sample: list[str]
    """Some of the lines, in their order."""


def count_pieces(tokenizer: Tokenizer, lines: Iterable[str], num_samples: int, seed: int) -> TextCounts:
    """Count the pieces of all lines, and choose `num_samples` lines that follow from `seed`.

    UserError for a text without lines.
    """
    counts = np.zeros(tokenizer.vocabulary.num_pieces, dtype=np.int64)
    generator = random.Random(seed)
    sample: dict[int, tuple[int, str]] = {}
    num_lines = 0
    for batch in _batches(lines):
        pieces = np.concatenate(tokenizer.pieces(_parts(batch)))
        counts += np.bincount(pieces, minlength=len(counts))
        for line in batch:
            place = num_lines if num_lines < num_samples else generator.randrange(num_lines + 1)
            if place < num_samples:
                sample[place] = num_lines, line
            num_lines += 1
    if not num_lines:
        raise UserError("there is no text in the files given: name some that have")
    return TextCounts(counts, num_lines, [line for _, line in sorted(sample.values())])


def count_differences(
    old: Tokenizer, new: Tokenizer, number_in_old: NDArray[np.int64], lines: Iterable[str]
) -> tuple[int, str]:
    """How many lines the tokenizers cut differently, piece by piece, and the first of them ("" without any).

    number_in_old [pieces of `new`] names the pieces of `new` by their number in `old`.
    """
    count, first = 0, ""
    for batch in _batches(lines):
        for line in batch:
            parts = _parts([line])
            pairs = zip(old.pieces(parts), new.pieces(parts), strict=True)
            if not all(np.array_equal(before, number_in_old[after]) for before, after in pairs):
                first = first or line
                count += 1
    return count, first


def _parts(lines: Iterable[str]) -> list[str]:
    """What of some lines is encoded by itself; ` </s> ` stands for a token between two parts of a source."""
    return [part.strip() for line in lines for part in line.split(SEPARATOR)]


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(lines)
    while batch := list(islice(iterator, _LINES_AT_ONCE)):
        yield batch
