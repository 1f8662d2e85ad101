"""Small prepared folders of made-up token ids, for tests that need data and no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deltalm_ds.data.indexed_files import IndexedWriter
from deltalm_ds.data.manifest import Manifest, SourceEntry, Split, TokenizerEntry
from deltalm_ds.files import sha256_of
from deltalm_ds.text.vocabulary import Vocabulary

Document = Sequence[Sequence[int]]
"""One sequence (monolingual) or two (a pair)."""


def write_corpus(
    folder: Path,
    train: Mapping[str, Sequence[Document]],
    valid: Mapping[str, Sequence[Document]] | None = None,
    num_pieces: int = 200,
    num_sentinels: int = 100,
) -> Path:
    """A prepared folder with these documents by source; a name with a hyphen is a source of pairs."""
    vocabulary = Vocabulary(num_pieces, num_sentinels)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(b"no real tokenizer")
    entries = []
    splits: tuple[tuple[Split, Mapping[str, Sequence[Document]]], ...] = (
        ("train", train),
        ("valid", valid or {}),
    )
    for split, sources in splits:
        (folder / split).mkdir(exist_ok=True)
        for name, documents in sources.items():
            with IndexedWriter(folder / split / name, vocabulary.token_dtype) as writer:
                for document in documents:
                    writer.add_document([np.array(sequence) for sequence in document])
            written = writer.written
            assert written is not None
            entries.append(
                SourceEntry(
                    name=name,
                    kind="pairs" if "-" in name else "monolingual",
                    languages=tuple(name.split("-")),
                    split=split,
                    prefix=f"{split}/{name}",
                    **vars(written),
                )
            )
    tokenizer = TokenizerEntry.of("tokenizer.model", sha256_of(folder / "tokenizer.model"), vocabulary)
    Manifest(
        tokenizer=tokenizer,
        dtype=vocabulary.token_dtype.name,
        seed=0,
        recipe="made up",
        sources=tuple(entries),
    ).write(folder)
    return folder


def random_documents(
    rng: np.random.Generator, count: int, longest: int, highest_id: int = 200
) -> list[Document]:
    """Monolingual documents `<s> line </s> line </s>` of 2 lines, each of 1 to `longest` ids."""
    lines = [rng.integers(4, highest_id + 1, rng.integers(1, longest + 1)).tolist() for _ in range(2 * count)]
    return [[[0, *lines[2 * i], 2, *lines[2 * i + 1], 2]] for i in range(count)]


def random_pairs(rng: np.random.Generator, count: int, longest: int, highest_id: int = 200) -> list[Document]:
    """Pairs `<s> source </s>`, `target </s>`, each side of 1 to `longest` ids."""
    sides = [rng.integers(4, highest_id + 1, rng.integers(1, longest + 1)).tolist() for _ in range(2 * count)]
    return [[[0, *sides[2 * i], 2], [*sides[2 * i + 1], 2]] for i in range(count)]


def write_random_corpus(folder: Path, num_sentinels: int = 100, scale: int = 1) -> Path:
    """Two languages and one pair, with validation; a few thousand tokens each, times `scale`."""
    rng = np.random.default_rng(0)
    return write_corpus(
        folder,
        train={
            "de": random_documents(rng, 60 * scale, 40),
            "fr": random_documents(rng, 90 * scale, 60),
            "de-fr": random_pairs(rng, 80 * scale, 30),
        },
        valid={"de": random_documents(rng, 8, 40), "de-fr": random_pairs(rng, 12, 30)},
        num_sentinels=num_sentinels,
    )
