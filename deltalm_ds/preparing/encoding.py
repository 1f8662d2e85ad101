"""A piece of raw text to tokens: parsed, cleaned, put in shuffled order, encoded, stored in a file.

The documents of a piece are stored by shuffle key, so that those of a range of keys lie together and the
whole source is put in order range by range. A key is a hash of the seed, the source, and the document's
place: input, piece, number.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from deltalm_ds.data.permutation import numbered_key, stream_key
from deltalm_ds.files import write_bytes_atomically
from deltalm_ds.preparing.ragged import places_of_runs, starts_of
from deltalm_ds.preparing.similarity import duplicate_keys
from deltalm_ds.text.cleaning import CleaningSettings, clean
from deltalm_ds.text.pieces import Piece
from deltalm_ds.text.readers import Documents, parse
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

STATISTICS = ("lines", "characters", "unknown")
"""What is counted of every document, beside its tokens: lines, characters of text, unknown pieces."""


class PieceSummary(TypedDict):
    """What became of a piece; JSON."""

    number: int
    """Its number in the input."""
    num_bytes: int
    """Its size."""
    sha256: str
    """Hash of its bytes."""
    stored: dict[str, tuple[int, int]]
    """Documents and tokens stored, by source."""
    read: dict[str, int]
    """Documents before cleaning, by source."""
    left_out: dict[str, dict[str, int]]
    """How many were left out for which reason, by source; under the input's name where the source of a
    damaged line is not known."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What the encoding of a piece depends on beside the piece."""

    tokenizer: Path
    """The SentencePiece model."""
    vocabulary: Vocabulary
    """Its ids."""
    cleaning: CleaningSettings
    """What is left out."""
    seed: int
    """Of the shuffle."""


def stored_documents(folder: Path, number: int, source: str) -> Path:
    """The file of a source's documents of the piece `number` of the part in `folder`."""
    return folder / f"{number}-{source}.safetensors"


def encode_piece(piece: Piece, folder: Path, encoding: Encoding) -> PieceSummary:
    """Write a piece's documents into `folder`, a file a source."""
    piece = replace(piece, contents=piece.read())
    parsed = parse(piece, encoding.cleaning.damaged)
    left_out = {piece.input.name: parsed.left_out}
    stored: dict[str, tuple[int, int]] = {}
    read: dict[str, int] = {}
    for documents in parsed.documents:
        name = documents.source
        read[name] = len(documents)
        documents, removed = clean(documents, encoding.cleaning)
        arrays = _encoded(documents, piece, encoding)
        num_blank = len(documents) - len(arrays["keys"])  # of which normalisation leaves nothing
        removed["blank"] += num_blank
        read[name] -= num_blank
        stored[name] = len(arrays["keys"]), len(arrays["tokens"])
        write_bytes_atomically(stored_documents(folder, piece.number, name), save(arrays))
        left_out.setdefault(name, Counter()).update(removed)
    return PieceSummary(
        number=piece.number,
        num_bytes=piece.num_bytes,
        sha256=digest_of(piece),
        stored=stored,
        read=read,
        left_out={name: dict(+counts) for name, counts in left_out.items() if +counts},
    )


def digest_of(piece: Piece) -> str:
    """SHA-256 of a piece's bytes, of both files one after the other."""
    digest = hashlib.sha256()
    for content in piece.read():
        digest.update(content)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _tokenizer(path: Path, modified: int, vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(path, vocabulary)


def _encoded(documents: Documents, piece: Piece, encoding: Encoding) -> dict[str, NDArray]:
    """The arrays of a source's documents, by shuffle key.

    keys [documents] uint64; lengths [documents, 1 or 2] int32 of their sequences; starts [documents + 1]
    int64, where their tokens begin; statistics [documents, 3] int32; tokens [tokens]; and what
    `duplicate_keys` returns.
    """
    tokenizer = _tokenizer(encoding.tokenizer, encoding.tokenizer.stat().st_mtime_ns, encoding.vocabulary)
    stream = stream_key("shuffle", encoding.seed, piece.input.name, piece.input.ordinal, piece.number)
    keys = numbered_key(stream, np.arange(len(documents)))
    order = np.argsort(keys, kind="stable")
    in_order = _in_order(documents, order)
    num_lines = np.array(in_order.num_lines, dtype=np.int64)

    encoded = tokenizer.pieces(in_order.lines)  # each ends with </s>
    line_lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    document_of_line = np.repeat(np.arange(len(num_lines)), num_lines)
    # Normalisation can leave nothing of a line, of control characters for example.
    has_pieces = line_lengths > 1
    lines_left = np.bincount(document_of_line[has_pieces], minlength=len(num_lines))
    is_pairs = len(documents.languages) == 2
    stays = lines_left == 2 if is_pairs else lines_left > 0
    line_stays = has_pieces & stays[document_of_line]
    if not line_stays.all():
        encoded = [ids for ids, here in zip(encoded, line_stays.tolist(), strict=True) if here]
    kept_lengths = line_lengths[line_stays]

    sums = starts_of(kept_lengths)
    first_lines = starts_of(lines_left[stays])
    document_starts = sums[first_lines[:-1]] + np.arange(len(first_lines) - 1)  # each has an <s> more
    tokens = np.empty(int(sums[-1]) + len(document_starts), dtype=encoding.vocabulary.token_dtype)
    is_text = np.ones(len(tokens), dtype=bool)
    is_text[document_starts] = False
    tokens[document_starts] = Vocabulary.BOS
    if encoded:
        tokens[is_text] = encoding.vocabulary.ids_of_pieces(np.concatenate(encoded))
    if is_pairs:
        lengths = kept_lengths.reshape(-1, 2) + np.array([1, 0])
    else:
        lengths = np.diff(sums[first_lines])[:, None] + 1

    return {
        "keys": keys[order][stays],
        "lengths": lengths.astype(np.int32),
        "starts": np.append(document_starts, len(tokens)),
        "statistics": _statistics(in_order.lines, line_stays, tokens, document_starts, first_lines),
        "tokens": tokens,
        **duplicate_keys(in_order, stays, order, encoding.cleaning),
    }


def _in_order(documents: Documents, order: NDArray[np.int64]) -> Documents:
    """The documents in another order."""
    num_lines = np.array(documents.num_lines, dtype=np.int64)
    places = places_of_runs(starts_of(num_lines)[order], num_lines[order])
    lines = documents.lines
    return Documents(
        documents.source,
        documents.languages,
        [lines[place] for place in places.tolist()],
        num_lines[order].tolist(),
    )


def _statistics(
    lines: list[str],
    line_stays: NDArray[np.bool_],
    tokens: NDArray,
    document_starts: NDArray[np.int64],
    first_lines: NDArray[np.int64],
) -> NDArray[np.int32]:
    """STATISTICS of every document that stays, [documents, 3]."""
    num_documents = len(document_starts)
    if not num_documents:
        return np.zeros((0, len(STATISTICS)), dtype=np.int32)
    characters = np.fromiter(map(len, lines), dtype=np.int64, count=len(lines))[line_stays]
    of_unknown = np.searchsorted(document_starts, np.flatnonzero(tokens == Vocabulary.UNK), side="right") - 1
    statistics = (
        np.diff(first_lines),
        np.add.reduceat(characters, first_lines[:-1]),
        np.bincount(of_unknown, minlength=num_documents),
    )
    return np.stack(statistics, axis=1).astype(np.int32)
