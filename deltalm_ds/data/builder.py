"""Text to indexed datasets: encoded by several processes, shuffled by key, split, written.

The documents of a source are encoded in input order into one spill file; then they are sorted by a hash of
the seed and of each document's place in the inputs, the first ones going to validation and the others to
training. So neither the number of workers nor another source changes a byte, and memory holds a hash and
a length of every document, 12 bytes, and no text.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np

from deltalm_ds.data.indexed import IndexedWriter
from deltalm_ds.data.manifest import SourceEntry, Split
from deltalm_ds.processes import Workers
from deltalm_ds.text.readers import Block, Document, parse_block
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import BOS_PIECE, EOS_PIECE, Vocabulary


@dataclass(frozen=True, kw_only=True)
class ValidationSplit:
    """How many of a source's documents are held out, where none of its inputs are by name."""

    share: float
    """Share of the documents, at least one of a source with two or more; 0 holds none out."""
    max_documents: int
    """At most so many of a source."""

    def count(self, num_documents: int) -> int:
        """How many of `num_documents` to hold out."""
        if self.share == 0 or num_documents < 2:
            return 0
        return min(max(round(self.share * num_documents), 1), self.max_documents, num_documents - 1)


@dataclass
class SourceStatistics:
    """What a source's text became, both splits together."""

    documents: int = 0
    """Documents or pairs."""
    lines: int = 0
    """Lines of text; two a pair."""
    text_bytes: int = 0
    """UTF-8 bytes of the lines."""
    tokens: int = 0
    """Tokens, <s> and </s> among them."""
    unknown: int = 0
    """Unknown pieces among them."""

    def add(self, other: SourceStatistics) -> None:
        """Count `other` in."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True, kw_only=True)
class BuiltSource:
    """A source as written: its datasets' manifest entries and what its text became."""

    name: str
    """The language, or the pair's two."""
    entries: tuple[SourceEntry, ...]
    """One for each split that has documents."""
    statistics: SourceStatistics
    """What its text became."""


def build_sources(
    blocks: Iterable[Block],
    folder: Path,
    tokenizer_path: Path,
    vocabulary: Vocabulary,
    seed: int,
    validation: ValidationSplit,
    workers: Workers,
    progress: Callable[[int], object],
) -> list[BuiltSource]:
    """Encode `blocks` and write train/NAME and valid/NAME under `folder` for every source, sources by name.

    `progress` is told the bytes of text encoded.
    """
    encode = partial(_encode_block, tokenizer_path=tokenizer_path, vocabulary=vocabulary, seed=seed)
    spills: dict[tuple[str, bool], _Spill] = {}
    for num_bytes, parts in workers.map(encode, blocks):
        for part in parts:
            place = (part.name, part.held_out)
            if place not in spills:
                spills[place] = _Spill(folder / f"spill-{len(spills)}.tmp", part.languages, part.tokens.dtype)
            spills[place].append(part)
        progress(num_bytes)
    names = sorted({name for name, _ in spills})
    return [
        _write_source(name, folder, spills.get((name, False)), spills.get((name, True)), validation)
        for name in names
    ]


@dataclass(frozen=True)
class _EncodedPart:
    """The documents that one block has of one source."""

    name: str
    languages: tuple[str, ...]
    held_out: bool
    keys: np.ndarray  # [documents] uint64
    lengths: np.ndarray  # [documents, sequences a document] int32
    tokens: np.ndarray  # [tokens], the documents' sequences one after another
    statistics: SourceStatistics


def _encode_block(
    block: Block, tokenizer_path: Path, vocabulary: Vocabulary, seed: int
) -> tuple[int, list[_EncodedPart]]:
    tokenizer = _tokenizer(tokenizer_path, tokenizer_path.stat().st_mtime_ns, vocabulary)
    documents: dict[str, list[Document]] = defaultdict(list)
    for document in parse_block(block):
        documents[document.source].append(document)
    parts = [_encode(name, block.input.held_out, group, tokenizer, seed) for name, group in documents.items()]
    return block.stored_bytes, [part for part in parts if part.statistics.documents]


@lru_cache(maxsize=1)
def _tokenizer(path: Path, modified: int, vocabulary: Vocabulary) -> Tokenizer:
    return Tokenizer(path, vocabulary)


def _encode(
    name: str, held_out: bool, documents: list[Document], tokenizer: Tokenizer, seed: int
) -> _EncodedPart:
    lines = [line for document in documents for line in document.lines]
    encoded = iter(tokenizer.pieces(lines))
    statistics = SourceStatistics()
    keys: list[int] = []
    lengths: list[list[int]] = []
    pieces: list[
        int
    ] = []  # one list for all: an array of its own for every line would cost more than encoding
    for document in documents:
        encoded_lines = [next(encoded) for _ in document.lines]
        sequences = _pair(*encoded_lines) if len(document.languages) == 2 else _monolingual(encoded_lines)
        if not sequences:
            continue  # normalisation left nothing of the text, of control characters for example
        keys.append(_shuffle_key(seed, document.key))
        lengths.append([len(sequence) for sequence in sequences])
        for sequence in sequences:
            pieces += sequence
        statistics.documents += 1
        statistics.lines += len(document.lines)
        statistics.text_bytes += sum(len(line.encode("utf-8")) for line in document.lines)
    tokens = tokenizer.vocabulary.ids_of_pieces(pieces)
    statistics.tokens = len(tokens)
    statistics.unknown = int(np.count_nonzero(tokens == Vocabulary.UNK))
    return _EncodedPart(
        name=name,
        languages=documents[0].languages,
        held_out=held_out,
        keys=np.array(keys, np.uint64),
        lengths=np.array(lengths, np.int32),
        tokens=tokens.astype(tokenizer.vocabulary.token_dtype),
        statistics=statistics,
    )


def _monolingual(lines: list[list[int]]) -> list[list[int]]:
    """`<s> line </s> line </s> ...`, or nothing where no line has pieces."""
    sequence = [BOS_PIECE]
    for line in lines:
        if line:
            sequence += line
            sequence.append(EOS_PIECE)
    return [sequence] if len(sequence) > 1 else []


def _pair(source: list[int], target: list[int]) -> list[list[int]]:
    """`<s> source </s>` and `target </s>`, or nothing where a side has no pieces."""
    return [[BOS_PIECE, *source, EOS_PIECE], [*target, EOS_PIECE]] if source and target else []


def _shuffle_key(seed: int, key: tuple[str, int, int]) -> int:
    digest = hashlib.blake2b(f"{seed} {' '.join(map(str, key))}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


class _Spill:
    """The encoded documents of one source, in input order: tokens in a file, the rest in memory."""

    def __init__(self, path: Path, languages: tuple[str, ...], dtype: np.dtype) -> None:
        self.path = path
        self.languages = languages
        self.dtype = dtype
        self.statistics = SourceStatistics()
        self._keys: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []

    def append(self, part: _EncodedPart) -> None:
        with self.path.open("ab") as file:  # opened each time: there may be more sources than open files
            file.write(part.tokens.data)  # tofile would not say why it failed, as of a full disk
        self._keys.append(part.keys)
        self._lengths.append(part.lengths)
        self.statistics.add(part.statistics)

    def documents(self) -> tuple[int, Iterator[list[np.ndarray]]]:
        """Number of documents, and the sequences of each, by key."""
        order = np.argsort(np.concatenate(self._keys), kind="stable")
        lengths = np.concatenate(self._lengths)
        return len(order), self._in_order(order, lengths)

    def _in_order(self, order: np.ndarray, lengths: np.ndarray) -> Iterator[list[np.ndarray]]:
        ends = np.cumsum(lengths.sum(axis=1, dtype=np.int64))
        tokens = np.memmap(self.path, dtype=self.dtype, mode="r")
        for document in order:
            stop = int(ends[document])
            sequences: list[np.ndarray] = []
            for length in map(int, lengths[document][::-1]):
                sequences.insert(0, tokens[stop - length : stop])
                stop -= length
            yield sequences


def _write_source(
    name: str, folder: Path, spill: _Spill | None, held_out: _Spill | None, validation: ValidationSplit
) -> BuiltSource:
    statistics = SourceStatistics()
    entries = []
    if held_out is not None:
        statistics.add(held_out.statistics)
        _, documents = held_out.documents()
        entries.append(_write_split(name, folder, "valid", held_out, documents))
    if spill is not None:
        statistics.add(spill.statistics)
        num_documents, documents = spill.documents()
        num_held_out = 0 if held_out is not None else validation.count(num_documents)
        if num_held_out:
            entries.append(_write_split(name, folder, "valid", spill, islice(documents, num_held_out)))
        entries.append(_write_split(name, folder, "train", spill, documents))
    for used in (spill, held_out):
        if used is not None:
            used.path.unlink()
    return BuiltSource(name=name, entries=tuple(entries), statistics=statistics)


def _write_split(
    name: str, folder: Path, split: Split, spill: _Spill, documents: Iterable[list[np.ndarray]]
) -> SourceEntry:
    prefix = f"{split}/{name}"
    (folder / prefix).parent.mkdir(exist_ok=True)
    with IndexedWriter(folder / prefix, spill.dtype) as writer:
        for sequences in documents:
            writer.add_document(sequences)
    assert writer.written is not None
    return SourceEntry(
        name=name,
        kind="pairs" if len(spill.languages) == 2 else "monolingual",
        languages=spill.languages,
        split=split,
        prefix=prefix,
        **asdict(writer.written),
    )
