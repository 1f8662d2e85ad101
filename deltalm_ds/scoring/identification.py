"""Which of some languages a text is in, learned from a sample of each: naive Bayes over character n-grams."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import regex

from deltalm_ds.errors import UserError

MIN_CHARACTERS = 2000
"""A shorter sample would say little of its language."""
MAX_CHARACTERS = 500_000
"""More of a sample is not read."""

_ORDERS = (1, 2, 3)
_SMOOTHING = 0.1
_BITS = 21
_SPACE = ord(" ") + 1
_NO_LETTERS = regex.compile(r"[^\p{L}\p{M}]+")


class LanguageIdentifier:
    """Tells languages apart by their letters, pairs and triples of them; case, digits and signs are nothing.

    Of all samples as many characters are used as the shortest has, so that no language is better known.
    """

    def __init__(self, samples: Mapping[str, str]) -> None:
        """From a text in each language; UserError for one language only, or a text that is too short."""
        if len(samples) < 2:
            raise UserError("to tell languages apart, give samples of two at least")
        letters = {language: _letters(text) for language, text in samples.items()}
        for language, sample in letters.items():
            if len(sample) < MIN_CHARACTERS:
                raise UserError(
                    f"the sample of {language} has {len(sample):,} letters: give {MIN_CHARACTERS:,} or more"
                )
        self.languages = tuple(letters)
        self.num_characters = min(MAX_CHARACTERS, *map(len, letters.values()))
        """How much of every sample is used."""
        used = [sample[: self.num_characters] for sample in letters.values()]
        counted = {order: [_counts(sample, order) for sample in used] for order in _ORDERS}
        self._keys = np.unique(np.concatenate([keys for pairs in counted.values() for keys, _ in pairs]))
        self._log_shares = np.zeros((len(self._keys), len(used)), np.float32)  # [n-grams, languages]
        for order, pairs in counted.items():
            of_order = _is_of_order(self._keys, order)
            for column, (keys, counts) in enumerate(pairs):
                smoothed = np.full(len(self._keys), _SMOOTHING)
                smoothed[np.searchsorted(self._keys, keys)] += counts
                smoothed = smoothed[of_order]
                self._log_shares[of_order, column] = np.log(smoothed / smoothed.sum())

    def identify(self, text: str) -> str | None:
        """The likeliest language; None for a text without letters, or with none that any sample has."""
        letters = _letters(text)
        if not letters.strip():
            return None
        keys = np.concatenate([_ngrams(letters, order) for order in _ORDERS])
        places = np.searchsorted(self._keys, keys)
        found = (places < len(self._keys)) & (keys != _SPACE)
        found[found] = self._keys[places[found]] == keys[found]
        if not found.any():
            return None
        scores = self._log_shares[places[found]].sum(axis=0, dtype=np.float64)
        return self.languages[int(scores.argmax())]


def _letters(text: str) -> str:
    """Letters in lower case, what is between them as one space, and a space at both ends."""
    return f" {_NO_LETTERS.sub(' ', text.lower()).strip()} "


def _ngrams(letters: str, order: int) -> np.ndarray:
    """The n-grams as integers, different for all n-grams and orders."""
    points = np.frombuffer(letters.encode("utf-32-le"), dtype=np.uint32).astype(np.int64) + 1
    keys = np.zeros(max(0, len(points) - order + 1), np.int64)
    for place in range(order):
        keys = (keys << _BITS) | points[place : place + len(keys)]
    return keys


def _counts(letters: str, order: int) -> tuple[np.ndarray, np.ndarray]:
    keys, counts = np.unique(_ngrams(letters, order), return_counts=True)
    return keys, counts


def _is_of_order(keys: np.ndarray, order: int) -> np.ndarray:
    return (keys >> (_BITS * order) == 0) & (keys >> (_BITS * (order - 1)) > 0)
