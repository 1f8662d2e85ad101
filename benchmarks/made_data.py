"""A made-up prepared folder: ids as frequent as words are, in sentences, documents and pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.indexed_files import IndexedWriter
from deltalm_ds.data.manifest import Manifest, SourceEntry, TokenizerEntry
from deltalm_ds.files import sha256_of
from deltalm_ds.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(250_000, 128)
"""XLM-R's pieces."""
FIRST_ORDINARY_ID = 4
SENTENCE, SENTENCES_A_DOCUMENT = 30, 20
"""megatron-core fills samples with whole sequences and leaves out documents with one of over 512 tokens."""
SHORTEST_SIDE, LONGEST_SIDE = 8, 60


def write_corpus(folder: Path, num_documents: int, num_pairs: int) -> Corpus:
    """Sources "de" and "de-fr" in `folder`."""
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    tokenizer = folder / "tokenizer.model"
    tokenizer.write_bytes(b"none")
    entries = (
        _write(folder, "de", ("de",), _documents(rng, num_documents)),
        _write(folder, "de-fr", ("de", "fr"), _pairs(rng, num_pairs)),
    )
    entry = TokenizerEntry.of(tokenizer.name, sha256_of(tokenizer), VOCABULARY)
    dtype = VOCABULARY.token_dtype.name
    Manifest(tokenizer=entry, dtype=dtype, seed=0, recipe="made up", sources=entries).write(folder)
    return Corpus.open(folder)


def _ids(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    ordinary = VOCABULARY.num_pieces - FIRST_ORDINARY_ID
    return FIRST_ORDINARY_ID + (rng.zipf(1.1, count) - 1) % ordinary


def _documents(rng: np.random.Generator, count: int) -> Iterator[list[NDArray[np.int64]]]:
    for _ in range(count):
        yield list(_ids(rng, SENTENCE * SENTENCES_A_DOCUMENT).reshape(-1, SENTENCE))


def _pairs(rng: np.random.Generator, count: int) -> Iterator[list[NDArray[np.int64]]]:
    for source, target in rng.integers(SHORTEST_SIDE, LONGEST_SIDE + 1, (count, 2)).tolist():
        yield [
            np.concatenate([[Vocabulary.BOS], _ids(rng, source), [Vocabulary.EOS]]),
            np.concatenate([_ids(rng, target), [Vocabulary.EOS]]),
        ]


def _write(
    folder: Path, name: str, languages: tuple[str, ...], documents: Iterator[list[NDArray[np.int64]]]
) -> SourceEntry:
    with IndexedWriter(folder / "train" / name, VOCABULARY.token_dtype) as writer:
        for document in documents:
            writer.add_document(document)
    assert writer.written is not None
    return SourceEntry(
        name=name,
        kind="monolingual" if len(languages) == 1 else "pairs",
        languages=languages,
        split="train",
        prefix=f"train/{name}",
        **vars(writer.written),
    )
