"""Text to the token ids that a tuned model reads and writes; training and generation share it.

A source is `<s> [tag] text </s>`, the tag being that of the language to write; where the text itself has
` </s> ` between two parts, as in question generation, the token stands there. A target is `text </s>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.errors import UserError
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

SEPARATOR = "</s>"
"""What stands for the token `</s>` between two parts of a source."""

_BOS, _EOS = (np.array([token], dtype=np.int32) for token in (Vocabulary.BOS, Vocabulary.EOS))


class TextEncoder:
    """Makes sources and targets; longer ones are cut, and keep their `</s>`.

    Args:
        tokenizer: the model's.
        tags: target language → id of its tag; empty for a model without tags.
        max_source_length, max_target_length: most tokens of each.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tags: Mapping[str, int],
        *,
        max_source_length: int,
        max_target_length: int,
    ) -> None:
        self.tokenizer = tokenizer
        self._tags = {language: np.array([tag], dtype=np.int32) for language, tag in tags.items()}
        self._max_source_length, self._max_target_length = max_source_length, max_target_length

    def sources(
        self, texts: Sequence[str], target_languages: Sequence[str]
    ) -> tuple[list[NDArray[np.int32]], NDArray[np.bool_]]:
        """Token ids of each text [tokens], and which of them were cut, [texts].

        UserError for a language that has no tag where others have.
        """
        parts = [text.split(SEPARATOR) for text in texts]
        encoded = iter(self.tokenizer.encode_batch([part.strip() for split in parts for part in split]))
        sources = []
        for split, language in zip(parts, target_languages, strict=True):
            pieces = [_BOS, *self._tag(language)]
            for _ in split:
                pieces += [next(encoded), _EOS]
            sources.append(np.concatenate(pieces))
        return self._cut(sources, self._max_source_length)

    def targets(self, texts: Sequence[str]) -> tuple[list[NDArray[np.int32]], NDArray[np.bool_]]:
        """Token ids of each text [tokens], and which of them were cut, [texts]."""
        encoded = [np.concatenate([ids, _EOS]) for ids in self.tokenizer.encode_batch(list(texts))]
        return self._cut(encoded, self._max_target_length)

    def _tag(self, language: str) -> list[NDArray[np.int32]]:
        if not self._tags:
            return []
        if language not in self._tags:
            raise UserError(f"the model does not write {language!r}: it knows {', '.join(self._tags)}")
        return [self._tags[language]]

    @staticmethod
    def _cut(
        sequences: list[NDArray[np.int32]], limit: int
    ) -> tuple[list[NDArray[np.int32]], NDArray[np.bool_]]:
        is_long = np.array([len(sequence) > limit for sequence in sequences], dtype=bool)
        for place in np.flatnonzero(is_long).tolist():
            sequences[place] = np.concatenate([sequences[place][: limit - 1], _EOS])
        return sequences, is_long
