"""Writing Megatron's indexed dataset: whole, or range by range by any number of processes at once."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.indexed import bin_path, header_bytes, idx_path
from deltalm_ds.files import file_tree_hash, fsync_directory

_LENGTH_BYTES, _POINTER_BYTES, _DOCUMENT_BYTES = 4, 8, 8


@dataclass(frozen=True, kw_only=True)
class WrittenDataset:
    """Counts, sizes and hashes of a dataset's files."""

    documents: int
    sequences: int
    tokens: int
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str


@dataclass(frozen=True)
class IndexedFiles:
    """PREFIX.bin and PREFIX.idx of a known size: made once by `create`, then filled in any order by `write`.

    Every document has the same number of sequences.
    """

    prefix: Path
    """Path without the suffix."""
    dtype: np.dtype
    """Of the tokens."""
    num_documents: int
    sequences_per_document: int
    num_tokens: int

    @property
    def num_sequences(self) -> int:
        """Sequences of all documents."""
        return self.num_documents * self.sequences_per_document

    @property
    def bin_bytes(self) -> int:
        """Size of the .bin."""
        return self.num_tokens * self.dtype.itemsize

    @property
    def idx_bytes(self) -> int:
        """Size of the .idx."""
        return self._documents_start + _DOCUMENT_BYTES * (self.num_documents + 1)

    @property
    def _header(self) -> bytes:
        return header_bytes(self.dtype, self.num_sequences, self.num_documents)

    @property
    def _pointers_start(self) -> int:
        return len(self._header) + _LENGTH_BYTES * self.num_sequences

    @property
    def _documents_start(self) -> int:
        return self._pointers_start + _POINTER_BYTES * self.num_sequences

    def create(self) -> None:
        """Make both files, empty but for the header and of their final size; keep what is there already."""
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        for path, size in ((bin_path(self.prefix), self.bin_bytes), (idx_path(self.prefix), self.idx_bytes)):
            with path.open("ab") as file:
                file.truncate(size)
        _write_at(idx_path(self.prefix), [(0, self._header)])

    def write(self, first_document: int, first_token: int, tokens: bytes, lengths: NDArray[np.int32]) -> None:
        """Write consecutive documents from `first_document` on, whose tokens begin at `first_token`.

        Args:
            tokens: the bytes of their tokens.
            lengths: tokens of each of their sequences, [documents, sequences_per_document].
        """
        flat = lengths.reshape(-1).astype("<i4")
        ends = np.cumsum(flat, dtype=np.int64)
        pointers = (first_token + ends - flat) * self.dtype.itemsize
        first_sequence = first_document * self.sequences_per_document
        # The last entry is the end of all documents; every other one is written with its document.
        numbers = np.arange(first_document, first_document + len(lengths) + 1, dtype="<i8")
        _write_at(bin_path(self.prefix), [(first_token * self.dtype.itemsize, tokens)])
        _write_at(
            idx_path(self.prefix),
            [
                (len(self._header) + _LENGTH_BYTES * first_sequence, flat.tobytes()),
                (self._pointers_start + _POINTER_BYTES * first_sequence, pointers.astype("<i8").tobytes()),
                (
                    self._documents_start + _DOCUMENT_BYTES * first_document,
                    (numbers * self.sequences_per_document).tobytes(),
                ),
            ],
        )


def _write_at(path: Path, contents: Sequence[tuple[int, bytes]]) -> None:
    """Write bytes at offsets of an existing file, and see them to the disk."""
    with path.open("r+b") as file:
        for offset, content in contents:
            file.seek(offset)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


class IndexedWriter:
    """Writes PREFIX.bin and PREFIX.idx from documents one by one: `add_document` in the block.

    Both files appear when the block ends without an exception; until then and after one there is neither.
    Memory: 4 bytes a sequence and 8 a document.
    """

    def __init__(self, prefix: str | Path, dtype: np.dtype | type) -> None:
        self.prefix = Path(prefix)
        self.dtype = np.dtype(dtype)
        header_bytes(self.dtype, 0, 0)  # refuses a dtype that the format has not
        self._lengths = array("i")
        self._document_indices = array("q", [0])
        self._num_tokens = 0
        self.written: WrittenDataset | None = None
        """Counts, sizes and hashes of the files, once they are there."""

    def __enter__(self) -> IndexedWriter:
        self._file = _aside(bin_path(self.prefix)).open("wb", buffering=1 << 20)
        return self

    def add_document(self, sequences: Sequence[np.ndarray]) -> None:
        """Append one document of sequences [length]; ValueError for values that do not fit the dtype."""
        for tokens in sequences:
            self._file.write(self._fitting(tokens).tobytes())
            self._lengths.append(len(tokens))
            self._num_tokens += len(tokens)
        self._document_indices.append(len(self._lengths))

    def _fitting(self, tokens: np.ndarray) -> np.ndarray:
        if tokens.dtype != self.dtype and len(tokens):
            limits = np.iinfo(self.dtype)
            if tokens.min() < limits.min or tokens.max() > limits.max:
                raise ValueError(f"tokens {tokens.min()}..{tokens.max()} do not fit {self.dtype}")
        return np.asarray(tokens, dtype=self.dtype)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token_file, index_file = bin_path(self.prefix), idx_path(self.prefix)
        try:
            with self._file:
                if error is not None:
                    return
                self._file.flush()
                os.fsync(self._file.fileno())
            index = self._index()
            with _aside(index_file).open("wb") as file:
                file.write(index)
                file.flush()
                os.fsync(file.fileno())
            index_file.unlink(missing_ok=True)  # never an old index beside new tokens
            _aside(token_file).replace(token_file)
            _aside(index_file).replace(index_file)
            fsync_directory(token_file.parent)
        finally:
            _aside(token_file).unlink(missing_ok=True)
            _aside(index_file).unlink(missing_ok=True)
        self.written = WrittenDataset(
            documents=len(self._document_indices) - 1,
            sequences=len(self._lengths),
            tokens=self._num_tokens,
            bin_bytes=self._num_tokens * self.dtype.itemsize,
            idx_bytes=len(index),
            bin_sha256=file_tree_hash(token_file),
            idx_sha256=file_tree_hash(index_file),
        )

    def _index(self) -> bytes:
        lengths = np.frombuffer(self._lengths, dtype=np.int32) if self._lengths else np.empty(0, np.int32)
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        pointers = np.concatenate([np.zeros(1, np.int64), ends])[: len(lengths)]
        indices = np.frombuffer(self._document_indices, dtype=np.int64)
        return b"".join(
            [
                header_bytes(self.dtype, len(lengths), len(indices) - 1),
                lengths.astype("<i4").tobytes(),
                pointers.astype("<i8").tobytes(),
                indices.astype("<i8").tobytes(),
            ]
        )


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
