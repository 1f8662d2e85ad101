"""Prepared folders of any size without their text: all of their files' pages but a few are holes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deltalm_ds.data.indexed_files import IndexedFiles
from deltalm_ds.data.manifest import Manifest, SourceEntry, TokenizerEntry
from deltalm_ds.files import sha256_of
from deltalm_ds.text.vocabulary import Vocabulary

TOKENS_A_SEQUENCE = 1_000


def write_sparse_corpus(folder: Path, num_tokens: Sequence[int], num_pieces: int = 16_000) -> Path:
    """A folder of monolingual sources with these numbers of tokens, all of them `<s>`.

    It takes tens of kilobytes on disk for each. A source has a sequence a thousand tokens, of which only the
    last one has a place in the index.
    """
    vocabulary = Vocabulary(num_pieces, 100)
    (folder / "train").mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(b"no real tokenizer")
    entries = []
    for number, tokens in enumerate(num_tokens):
        name = f"x{number:02}"
        prefix = folder / "train" / name
        num_sequences = -(-tokens // TOKENS_A_SEQUENCE)
        files = IndexedFiles(prefix, vocabulary.token_dtype, num_sequences, 1, tokens)
        files.create()
        last = tokens - (num_sequences - 1) * TOKENS_A_SEQUENCE
        content = bytes(last * vocabulary.token_dtype.itemsize)
        files.write(num_sequences - 1, tokens - last, content, np.array([[last]], dtype=np.int32))
        entries.append(
            SourceEntry(
                name=name,
                kind="monolingual",
                languages=(name,),
                split="train",
                prefix=f"train/{name}",
                documents=num_sequences,
                sequences=num_sequences,
                tokens=tokens,
                bin_bytes=files.bin_bytes,
                idx_bytes=files.idx_bytes,
                bin_sha256="0" * 64,
                idx_sha256="0" * 64,
            )
        )
    Manifest(
        tokenizer=TokenizerEntry.of("tokenizer.model", sha256_of(folder / "tokenizer.model"), vocabulary),
        dtype=vocabulary.token_dtype.name,
        seed=0,
        recipe="made up",
        sources=tuple(entries),
    ).write(folder)
    return folder
