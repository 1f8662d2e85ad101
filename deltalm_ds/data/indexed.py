"""Megatron's indexed dataset, version 1: tokens in PREFIX.bin, where sequences begin in PREFIX.idx.

The .idx holds, little-endian: the magic bytes, u64 version 1, u8 dtype code, u64 number of sequences, u64
number of document indices, int32 lengths [sequences], int64 byte offsets [sequences], int64 document indices
[documents + 1] (the sequence numbers at which documents begin, and the number of sequences).
The format is megatron.core.datasets.indexed_dataset's; its files are read here and ours there.
"""

from __future__ import annotations

import bisect
import struct
from pathlib import Path
from typing import Any

import numpy as np

from deltalm_ds.errors import UserError

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_DTYPE_CODES = {np.dtype(name): code for code, name in _DTYPES.items()}
_CHECKED_AT_ONCE = 1 << 20


def header_bytes(dtype: np.dtype, num_sequences: int, num_documents: int) -> bytes:
    """The beginning of a .idx file. ValueError for a dtype that the format has not."""
    if dtype not in _DTYPE_CODES:
        raise ValueError(f"an indexed dataset holds integers of at most 64 bits, not {dtype}")
    return _HEADER.pack(_MAGIC, _VERSION, _DTYPE_CODES[dtype], num_sequences, num_documents + 1)


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
