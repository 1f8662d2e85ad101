"""Text as it is stored: plain, .gz, .xz, .zst, or a member of a .zip, decompressed while it is read."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, BinaryIO, cast

import zstandard

from deltalm_ds.errors import UserError

SUFFIXES = (".gz", ".xz", ".zst")
"""Endings of the names of compressed files."""
ARCHIVE_SUFFIX = ".zip"
"""Ending of the name of a file with members."""

# So little that what it may decompress to, 32,768 times as much and held twice for a moment, is 64 MB.
_ZSTD_BYTES_AT_ONCE = 1 << 10

_DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstandard.ZstdError, zipfile.BadZipFile)
# What zipfile raises, beside _DAMAGE, for directories and members of nonsense, unknown or encrypted ones.
_BAD_MEMBER = (*_DAMAGE, KeyError, NotImplementedError, RuntimeError, ValueError, OverflowError, struct.error)
# Python gives out all that a piece of another kind decompresses to at once, however much that is.
_MEMBER_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True, order=True)
class StoredText:
    """A file of text, or one member of a .zip. Nothing is ever unpacked to disk."""

    path: Path
    """The file."""
    member: str = ""
    """The member's name, where the file is a .zip."""

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    @property
    def plain_name(self) -> str:
        """The name of the text itself: fr.txt for fr.txt.gz and for the member a/fr.txt."""
        if self.member:
            return PurePosixPath(self.member).name
        return self.path.stem if self.path.suffix in SUFFIXES else self.path.name

    @property
    def folder(self) -> Path:
        """What its partner, if it is one side of pairs, has to be in as well: a folder or the .zip."""
        return self.path / PurePosixPath(self.member).parent if self.member else self.path.parent

    @property
    def is_plain(self) -> bool:
        """Whether its bytes on disk are its text."""
        return not self.member and self.path.suffix not in SUFFIXES

    def state(self) -> tuple[int, int]:
        """Size and time of change, ns, of the file: two that are equal mean that it is unchanged."""
        with _naming(self.path):
            status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    @property
    def stored_bytes(self) -> int:
        """Size on disk; of a member, its part of the .zip."""
        if not self.member:
            return self.state()[0]
        with _archive(self.path) as archive:
            return _member(archive, self).compress_size


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make the OSErrors of a with block UserErrors that name the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The .zip at `path`; UserError if it is none or is damaged."""
    with _naming(path), path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except _BAD_MEMBER as error:
            raise UserError(f"{path} is no whole .zip ({error}): fetch it again") from None
        yield archive


def _member(archive: zipfile.ZipFile, text: StoredText) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(text.member)
    except KeyError:
        raise UserError(f"{text.path} has no member {text.member!r} any more: start again") from None


def members(path: Path) -> list[StoredText]:
    """The files in a .zip, by name."""
    with _archive(path) as archive:
        names = {name for name in archive.namelist() if name and not name.endswith("/")}
    return [StoredText(path, name) for name in sorted(names)]


class TextReader:
    """The bytes of a stored text from its beginning; a context manager.

    Raises UserError if it cannot be read, or its compressed form is damaged, cut off or encrypted.
    """

    def __init__(self, stored: StoredText) -> None:
        self.stored = stored
        self._bytes_read = self._first_stored_byte = 0
        with _naming(stored.path):
            self._file = stored.path.open("rb")
            try:
                self._text = self._opened()
            except BaseException:
                self._file.close()
                raise

    def _opened(self) -> IO[bytes]:
        if not self.stored.member:
            return _decompressed(self._file, self.stored.path.suffix)
        try:
            archive = zipfile.ZipFile(self._file)
            entry = _member(archive, self.stored)
            if entry.compress_type not in _MEMBER_KINDS:
                raise NotImplementedError("neither stored nor deflated")
            text = archive.open(entry)
        except _BAD_MEMBER as error:
            raise UserError(f"{self.stored} cannot be read ({error}): unpack or fetch it again") from None
        self._first_stored_byte = entry.header_offset
        return text

    @property
    def stored_bytes_read(self) -> int:
        """How far the text has been read, in bytes as they lie on disk."""
        return max(self._file.tell() - self._first_stored_byte, 0)

    def read(self, size: int) -> bytes:
        """The next bytes: `size` of them, fewer only at the end."""
        pieces, missing = [], size
        try:
            while missing and (piece := self._text.read(missing)):
                pieces.append(piece)
                missing -= len(piece)
        except _DAMAGE as error:
            reached = self._bytes_read + size - missing
            raise UserError(
                f"{self.stored} is damaged or cut off: after {reached:,} bytes of text it cannot be "
                f"decompressed ({error}); fetch it again"
            ) from None
        except OSError as error:
            raise UserError(f"{self.stored} cannot be read: {error.strerror or error}") from None
        self._bytes_read += size - missing
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seek(self, offset: int) -> None:
        """Go to an offset of a plain file."""
        self._file.seek(offset)

    def check_unchanged(self, state: tuple[int, int]) -> None:
        """UserError if the file is not, or is no longer, in that `StoredText.state`."""
        status = os.fstat(self._file.fileno())
        if (status.st_size, status.st_mtime_ns) != state or self.stored.state() != state:
            raise UserError(
                f"{self.stored.path} has changed since this began to read its inputs: "
                "start again when nobody writes to it"
            )

    def __enter__(self) -> TextReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _decompressed(file: BinaryIO, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if suffix == ".xz":
        return cast(IO[bytes], lzma.LZMAFile(file))
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
