"""Megatron's indexed dataset, version 1: tokens in PREFIX.bin, where sequences begin in PREFIX.idx.

The .idx holds, little-endian: the magic bytes, u64 version 1, u8 dtype code, u64 number of sequences, u64
number of document indices, int32 lengths [sequences], int64 byte offsets [sequences], int64 document indices
[documents + 1] (the sequence numbers at which documents begin, and the number of sequences).
The format is megatron.core.datasets.indexed_dataset's; its files are read here and ours there.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from deltalm_ds.errors import UserError
from deltalm_ds.files import fsync_directory

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_DTYPE_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}
_CHECKED_AT_ONCE = 1 << 20


def bin_path(prefix: str | Path) -> Path:
    """The file of tokens of the dataset at `prefix`."""
    return Path(f"{prefix}.bin")


def idx_path(prefix: str | Path) -> Path:
    """The index file of the dataset at `prefix`."""
    return Path(f"{prefix}.idx")


class IndexedDataset:
    """A dataset opened for reading, memory-mapped: opening costs the same for any size.

    Tokens are one stream over the whole .bin; offsets into it count tokens. UserError for a file that is
    missing, truncated or of another format, found by sizes alone, before anything is mapped; reading checks
    the entries that it uses, `check` the whole index.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        index_file, token_file = idx_path(prefix), bin_path(prefix)
        index_size, bin_size = _size_of(index_file), _size_of(token_file)
        self.dtype, self.num_sequences, num_indices = _read_header(index_file, index_size)
        self.num_documents = num_indices - 1
        if bin_size % self.dtype.itemsize:
            raise UserError(
                f"{token_file} is not a whole number of {self.dtype} tokens: prepare the data again"
            )
        self.num_tokens = bin_size // self.dtype.itemsize

        index = np.memmap(index_file, mode="r", dtype=np.uint8)
        lengths_end = _HEADER.size + 4 * self.num_sequences
        pointers_end = lengths_end + 8 * self.num_sequences
        self.lengths = np.asarray(index[_HEADER.size : lengths_end]).view("<i4")
        """Tokens of every sequence, [num_sequences] int32."""
        self._pointers = np.asarray(index[lengths_end:pointers_end]).view("<i8")
        self.document_indices = np.asarray(index[pointers_end:]).view("<i8")
        """The sequence at which every document begins, and the number of sequences, [num_documents + 1]."""
        self._tokens = (
            np.asarray(np.memmap(token_file, mode="r", dtype=self.dtype))
            if self.num_tokens
            else np.empty(0, self.dtype)
        )
        self.dtype_code = _DTYPE_CODES[self.dtype]
        """The format's number of the tokens' dtype."""
        self.tokens_address, self.pointers_address = self._tokens.ctypes.data, self._pointers.ctypes.data
        """Where the tokens, and the byte offsets of sequences, lie in this process's memory."""
        self._check_ends()

    def __len__(self) -> int:
        return self.num_sequences

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexedDataset, (self.prefix,)  # a worker maps the files itself instead of receiving them

    def sequence_start(self, index: int) -> int:
        """Offset of the first token of a sequence; that of the end for index == num_sequences.

        UserError where the index points at no token.
        """
        if not 0 <= index <= self.num_sequences:
            raise IndexError(f"sequence {index} is not within 0..{self.num_sequences}")
        if index == self.num_sequences:
            return self.num_tokens
        start, rest = divmod(int(self._pointers[index]), self.dtype.itemsize)
        if rest or not 0 <= start <= self.num_tokens:
            raise self.damaged(f"sequence {index} begins at no token")
        return start

    def sequence_bounds(self, index: int) -> tuple[int, int]:
        """Offsets of the first token of a sequence and of the one after its last.

        UserError where the index lets it end elsewhere than the next one begins.
        """
        if not 0 <= index < self.num_sequences:
            raise IndexError(f"sequence {index} is not within 0..{self.num_sequences - 1}")
        start, stop = self.sequence_start(index), self.sequence_start(index + 1)
        if not start <= stop == start + int(self.lengths[index]):
            raise self.damaged(f"sequence {index} does not end where the next one begins")
        return start, stop

    def sequence(self, index: int) -> np.ndarray:
        """The tokens [length] of one sequence, a read-only view into the file."""
        return self.tokens(*self.sequence_bounds(index))

    def document(self, number: int) -> range:
        """The sequences of one document; UserError where the index names some that do not exist."""
        if not 0 <= number < self.num_documents:
            raise IndexError(f"document {number} is not within 0..{self.num_documents - 1}")
        first, end = map(int, self.document_indices[number : number + 2])
        if not 0 <= first <= end <= self.num_sequences:
            raise self.damaged(f"document {number} has impossible sequences")
        return range(first, end)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """The tokens [stop - start] at offsets start..stop - 1, across sequences, a view into the file."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start}..{stop} of {self.prefix} are not within 0..{self.num_tokens}")
        return self._tokens[start:stop]

    def first_sequence_from(self, offset: int) -> int:
        """The first sequence that starts at token `offset` or later; num_sequences where none does.

        A binary search that reads only the entries it compares: np.searchsorted would copy the whole index
        at every call, since the format leaves it unaligned.
        """
        return bisect.bisect_left(self._pointers, offset * self.dtype.itemsize)

    def check(self) -> None:
        """Read the whole index: UserError unless sequences and documents follow each other without gaps."""
        expected = 0
        for start in range(0, self.num_sequences, _CHECKED_AT_ONCE):
            lengths = self.lengths[start : start + _CHECKED_AT_ONCE].astype(np.int64)
            ends = expected + np.cumsum(lengths) * self.dtype.itemsize
            starts = np.concatenate([[expected], ends[:-1]])
            if lengths.min() < 0 or not np.array_equal(
                starts, self._pointers[start : start + _CHECKED_AT_ONCE]
            ):
                raise self.damaged("its sequences do not follow each other")
            expected = int(ends[-1])
        for start in range(0, self.num_documents, _CHECKED_AT_ONCE):
            if np.any(np.diff(self.document_indices[start : start + _CHECKED_AT_ONCE + 1]) < 0):
                raise self.damaged("its documents do not follow each other")

    def _check_ends(self) -> None:
        if self.document_indices[0] != 0 or self.document_indices[-1] != self.num_sequences:
            raise self.damaged("its documents do not cover its sequences")
        described = 0
        if self.num_sequences:
            if self._pointers[0] != 0 or self.lengths[0] < 0 or self.lengths[-1] < 0:
                raise self.damaged("its first or last sequence has no possible place")
            described = int(self._pointers[-1]) + int(self.lengths[-1]) * self.dtype.itemsize
        bin_size = self.num_tokens * self.dtype.itemsize
        if described != bin_size:
            raise UserError(
                f"{bin_path(self.prefix)} has {bin_size:,} bytes and its index describes {described:,}: "
                "one of the two is truncated or of another dataset; prepare the data again"
            )

    def damaged(self, reason: str) -> UserError:
        """The error for an index whose entries cannot be."""
        return UserError(f"{idx_path(self.prefix)} is damaged ({reason}): prepare the data again")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path} is missing: prepare the data again or correct the path") from None


def _read_header(path: Path, size: int) -> tuple[np.dtype, int, int]:
    """Token dtype, number of sequences and number of document indices, the counts checked against `size`."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
    if not header.startswith(_MAGIC):
        raise UserError(f"{path} is not a Megatron index file (it does not begin with MMIDIDX)")
    if len(header) < _HEADER.size:
        raise UserError(f"{path} is truncated: prepare the data again")
    _, version, code, num_sequences, num_indices = _HEADER.unpack(header)
    if version != _VERSION or code not in _DTYPES:
        raise UserError(
            f"{path} has version {version}, dtype code {code}; only version 1 of integers is read"
        )
    expected = _HEADER.size + 12 * num_sequences + 8 * num_indices
    if size != expected or num_indices < 1:
        raise UserError(
            f"{path} has {size:,} bytes where its counts ({num_sequences:,} sequences, {num_indices:,} "
            f"document indices) need {expected:,}: it is truncated or damaged; prepare the data again"
        )
    return np.dtype(_DTYPES[code]), num_sequences, num_indices


@dataclass(frozen=True, kw_only=True)
class WrittenDataset:
    """What `IndexedWriter` has written."""

    documents: int
    sequences: int
    tokens: int
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str


class IndexedWriter:
    """Writes PREFIX.bin and PREFIX.idx: `add_document` in the block, `written` after it.

    Both files appear when the block ends without an exception; until then and after one there is neither.
    Memory: 4 bytes a sequence and 8 a document.
    """

    def __init__(self, prefix: str | Path, dtype: np.dtype | type) -> None:
        self.prefix = Path(prefix)
        self.dtype = np.dtype(dtype)
        if self.dtype not in _DTYPE_CODES:
            raise ValueError(f"an indexed dataset holds integers of at most 64 bits, not {self.dtype}")
        self._lengths = array("i")
        self._document_indices = array("q", [0])
        self._digest = hashlib.sha256()
        self._num_tokens = 0
        self.written: WrittenDataset | None = None
        """Counts, sizes and hashes of the files, once they are there."""

    def __enter__(self) -> IndexedWriter:
        self._file = _aside(bin_path(self.prefix)).open("wb", buffering=1 << 20)
        return self

    def add_document(self, sequences: Sequence[np.ndarray]) -> None:
        """Append one document of sequences [length]; ValueError for values that do not fit the dtype."""
        for tokens in sequences:
            content = self._fitting(tokens).tobytes()
            self._file.write(content)
            self._digest.update(content)
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
            bin_sha256=self._digest.hexdigest(),
            idx_sha256=hashlib.sha256(index).hexdigest(),
        )

    def _index(self) -> bytes:
        lengths = np.frombuffer(self._lengths, dtype=np.int32) if self._lengths else np.empty(0, np.int32)
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        pointers = np.concatenate([np.zeros(1, np.int64), ends])[: len(lengths)]
        indices = np.frombuffer(self._document_indices, dtype=np.int64)
        code = _DTYPE_CODES[self.dtype]
        header = _HEADER.pack(_MAGIC, _VERSION, code, len(lengths), len(indices))
        return b"".join(
            [
                header,
                lengths.astype("<i4").tobytes(),
                pointers.astype("<i8").tobytes(),
                indices.astype("<i8").tobytes(),
            ]
        )


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
