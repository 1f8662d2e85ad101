"""Text files as they are or compressed: .gz, .xz, .zst, decompressed while they are read."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import zstandard

from deltalm_ds.errors import UserError

SUFFIXES = (".gz", ".xz", ".zst")
"""Endings of the names of compressed files."""

# So little that what it may decompress to, 32,768 times as much, fits into memory.
_ZSTD_BYTES_AT_ONCE = 1 << 12

_DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstandard.ZstdError)


def plain_path(path: Path) -> Path:
    """The path without the ending of a compressed file: fr.txt for fr.txt.gz."""
    return path.with_suffix("") if path.suffix in SUFFIXES else path


class TextFile:
    """A file's lines as bytes; a context manager.

    Raises OSError if it cannot be read, UserError if its compressed form is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stored = path.open("rb")
        self._text = _decompressed(self._stored, path.suffix)
        self._bytes_read = 0

    @property
    def stored_bytes_read(self) -> int:
        """How far the file has been read, in bytes as they lie on disk."""
        return self._stored.tell()

    def readline(self, limit: int) -> bytes:
        """The next line with its end, or `limit` bytes of it; nothing at the end."""
        try:
            line = self._text.readline(limit)
        except _DAMAGE as error:
            raise UserError(
                f"{self.path} is damaged or cut off: after {self._bytes_read:,} bytes of text it cannot be "
                f"decompressed ({error}); fetch it again"
            ) from None
        self._bytes_read += len(line)
        return line

    def __enter__(self) -> TextFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stored.close()


def _decompressed(file: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(file))
    if suffix == ".zst":
        return io.BufferedReader(_ZstdReader(file))
    return file


class _ZstdReader(io.RawIOBase):
    """The content of all frames of a file; zstandard's own reader takes a cut-off file for a whole one."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._stored = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._text:
            self._stored = self._stored or self._file.read(_ZSTD_BYTES_AT_ONCE)
            if not self._stored:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._text = memoryview(self._frame.decompress(self._stored))
            self._stored = b""
            if self._frame.eof:
                self._stored, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._text))
        buffer[:count] = self._text[:count]
        self._text = self._text[count:]
        return count
