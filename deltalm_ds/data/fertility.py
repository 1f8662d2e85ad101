"""How many tokens the tokenizer makes of text, by language, measured on text decoded from prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.corpus import Source
from deltalm_ds.data.windows import read_tokens
from deltalm_ds.text.languages import is_written_with_spaces
from deltalm_ds.text.printable import printable
from deltalm_ds.text.tokenizer import Tokenizer

MAX_DOCUMENT_TOKENS = 500
"""Of each document no more is read, so that no long one outweighs the others."""
_UNKNOWN = "\ufffd"


@dataclass
class Fertility:
    """Counts of one language's measured text, without special tokens."""

    language: str
    tokens: int = 0
    characters: int = 0
    """Of the text as the tokenizer normalised it, spaces counted; <unk> is one."""
    words: int = 0
    """Parted by white space."""
    unknown: int = 0
    """Tokens that are <unk>."""

    @property
    def tokens_per_character(self) -> float:
        """Of text in which there is any."""
        return self.tokens / self.characters

    @property
    def tokens_per_word(self) -> float | None:
        """None for languages written without spaces."""
        return self.tokens / self.words if is_written_with_spaces(self.language) else None

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are <unk>."""
        return self.unknown / self.tokens


def measure_fertility(sources: Sequence[Source], tokenizer: Tokenizer, num_documents: int) -> list[Fertility]:
    """Fertility by language, in the order of their codes, over every source that has the language.

    Of each source the first `num_documents` documents are read, which are a random sample, as documents are
    shuffled when they are prepared. UserError where what is read cannot be.
    """
    vocabulary = tokenizer.vocabulary
    found: dict[str, Fertility] = {}
    for source in sources:
        for language, ids in _document_tokens(source, num_documents, vocabulary.num_rows):
            counts = found.setdefault(language, Fertility(printable(language)))
            ids = ids[(ids >= vocabulary.UNK) & (ids <= vocabulary.num_pieces)]
            unknown = np.flatnonzero(ids == vocabulary.UNK)
            first, *others = np.split(ids, unknown)
            text = _UNKNOWN.join(_text(run, tokenizer) for run in (first, *(run[1:] for run in others)))
            counts.tokens += len(ids)
            counts.characters += len(text.strip())
            counts.words += len(text.split())
            counts.unknown += len(unknown)
    return [found[language] for language in sorted(found) if found[language].characters]


def _text(ids: NDArray[np.int32], tokenizer: Tokenizer) -> str:
    return "".join(segment.text for segment in tokenizer.segments(ids.tolist()))


def _document_tokens(
    source: Source, num_documents: int, num_rows: int
) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Language and first tokens of the sides of a source's first documents."""
    dataset = source.dataset
    for document in range(min(num_documents, dataset.num_documents)):
        sequences = dataset.document(document)
        if len(sequences) != len(source.languages):
            raise dataset.damaged(f"document {document} of {source.kind} has {len(sequences):,} sequences")
        for language, sequence in zip(source.languages, sequences, strict=True):
            start, stop = dataset.sequence_bounds(sequence)
            yield language, read_tokens(dataset, start, min(stop, start + MAX_DOCUMENT_TOKENS), num_rows)
