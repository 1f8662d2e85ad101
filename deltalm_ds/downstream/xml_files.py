"""XML files of public data sets: WebNLG and WMT, alone or in a .tar, told by their outermost element."""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from typing import BinaryIO, cast
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from deltalm_ds.downstream.rows import Row
from deltalm_ds.downstream.webnlg import webnlg_rows
from deltalm_ds.downstream.wmt import wmt_rows
from deltalm_ds.errors import UserError
from deltalm_ds.text.printable import printable
from deltalm_ds.text.stored import StoredText, TextReader

MAX_XML_BYTES = 64 << 20
"""A larger file is refused: memory is bounded by it, times 25 at worst."""
MAX_TAR_BYTES = 16 << 30
"""A .tar with more bytes is refused."""

_MAX_HEADER_BYTES = 1 << 20
_LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_ROWS = {"benchmark": webnlg_rows, "dataset": wmt_rows}


def read_xml(text: StoredText) -> Iterator[Row]:
    """The rows of an .xml file. UserError for one that is broken, unknown, too large or defines entities."""
    with TextReader(text) as reader:
        content = reader.read(MAX_XML_BYTES + 1)
    yield from _rows(text, content)


def tar_members(text: StoredText) -> list[str]:
    """The names of the .xml files in a .tar, in its order. UserError for one that is damaged or too large."""
    return [name for name, _ in _members(text, ())]


def read_tar(text: StoredText, members: Collection[str]) -> Iterator[Row]:
    """The rows of some .xml files in a .tar, as `read_xml` reads them; nothing is unpacked to disk."""
    for name, content in _members(text, members):
        if name in members:
            yield from _rows(StoredText(text.path, printable(name)), content)


class _BoundedHeader(tarfile.TarInfo):
    """tarfile reads what stands before a member, such as a long name, whole: its size must be bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedHeader:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def _members(text: StoredText, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The names of all .xml files in a .tar, and what is in those that are wanted."""
    with TextReader(text) as reader:
        try:
            # Forwards only, as compressed files are read.
            stream = cast(BinaryIO, reader)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_BoundedHeader) as archive:
                for member in archive:
                    if member.offset_data + member.size > MAX_TAR_BYTES:
                        raise UserError(f"{text} holds more than {MAX_TAR_BYTES:,} bytes: unpack it")
                    if member.isreg() and member.name.endswith(".xml"):
                        file = archive.extractfile(member) if member.name in wanted else None
                        yield member.name, file.read(MAX_XML_BYTES + 1) if file else b""
        except tarfile.TarError as error:
            raise UserError(f"{text} is no whole .tar ({error}): fetch it again") from None


def _rows(text: StoredText, content: bytes) -> Iterator[Row]:
    if len(content) > MAX_XML_BYTES:
        raise UserError(f"{text} has more than {MAX_XML_BYTES:,} bytes of XML: split it")
    try:
        root: Element = defusedxml.ElementTree.fromstring(content)
    except DefusedXmlException:
        raise UserError(
            f"{text} defines entities or refers to other files, which data have no need of: remove that"
        ) from None
    except ParseError as error:
        raise UserError(f"{text} is no XML ({error}): correct it or fetch it again") from None
    except (ValueError, LookupError) as error:
        raise UserError(f"{text} is in an encoding that is not read ({error}): convert it to UTF-8") from None
    if root.tag not in _ROWS:
        raise UserError(
            f"{text} begins with <{root.tag}>, which is neither WebNLG (<benchmark>) nor WMT (<dataset>)"
        )
    yield from _ROWS[root.tag](root, text)
