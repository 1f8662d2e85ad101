"""Compressed text and members of archives are read as if they were plain files, and damage is told."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from reading import read

from deltalm_ds.errors import UserError
from deltalm_ds.text import pieces
from deltalm_ds.text.stored import SUFFIXES, StoredText, TextReader, members

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}
# Some of it does not compress, so that there is much to cut and to damage.
GENERATOR = random.Random(7)
TEXT = "".join(
    f"line {i} {GENERATOR.randrange(10**9)} é\n" + "\n" * (i % 3 == 0) for i in range(3000)
).encode()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".zip"])
def test_texts_and_pairs_are_the_same_as_plain(tmp_path: Path, suffix: str) -> None:
    files = {"fr.txt": TEXT, "wiki.de.jsonl": b'{"text": "ein Satz"}\n', "a.en": b"x\n", "a.de": b"y\n"}
    plain, stored = tmp_path / "plain", tmp_path / "stored"
    plain.mkdir()
    stored.mkdir()
    for name, content in files.items():
        (plain / name).write_bytes(content)
        if suffix != ".zip":
            (stored / (name + suffix)).write_bytes(COMPRESS[suffix](content))
    if suffix == ".zip":
        write_zip(stored / "all.zip", files)
    assert read(stored) == read(plain)
    assert len(read(plain)) > 1000


def test_an_archive_of_opus_is_its_pairs(tmp_path: Path) -> None:
    files = {
        "Books.en-fr.en": b"one\ntwo\n",
        "Books.en-fr.fr": b"un\ndeux\n",
        "README": b"read me",
        "LICENSE": b"license",
        "Books.en-fr.xml": b"<links/>",
        "Books.en-fr.ids": b"1 1\n2 2\n",
    }
    write_zip(tmp_path / "en-fr.txt.zip", files)
    assert read(tmp_path) == [("en-fr", ["one", "un"]), ("en-fr", ["two", "deux"])]


def test_one_side_of_pairs_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "train.en.xz").write_bytes(lzma.compress(b"one\ntwo\n"))
    (tmp_path / "train.fr").write_bytes(b"un\ndeux\n")
    assert read(tmp_path) == [("en-fr", ["one", "un"]), ("en-fr", ["two", "deux"])]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_one_after_the_other_are_one_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fr.txt{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT) + COMPRESS[suffix](b"the end\n"))
    with TextReader(StoredText(path)) as reader:
        content = b"".join(iter(lambda: reader.read(1 << 15), b""))
        assert reader.stored_bytes_read == path.stat().st_size
    assert content == TEXT + b"the end\n"


@pytest.mark.parametrize("cut", [0.0001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_was_cut_off_is_told(tmp_path: Path, suffix: str, cut: float) -> None:
    path = tmp_path / f"fr.txt{suffix}"
    whole = COMPRESS[suffix](TEXT)
    path.write_bytes(whole[: max(2, int(cut * len(whole)))])
    with pytest.raises(UserError, match=rf"fr\.txt\{suffix} is damaged or cut off: after [\d,]+ bytes"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_compressed_is_told(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"fr.txt{suffix}").write_bytes(b"plain text under a wrong name\n" * 20)
    with pytest.raises(UserError, match="after 0 bytes of text it cannot be decompressed"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_flipped_bit_is_told(tmp_path: Path, suffix: str) -> None:
    """Both formats hold checksums; .zst has one only where its writer was told to."""
    content = bytearray(COMPRESS[suffix](TEXT))
    content[len(content) // 2] ^= 4
    (tmp_path / f"fr.txt{suffix}").write_bytes(content)
    with pytest.raises(UserError, match="is damaged or cut off"):
        read(tmp_path)


def test_damaged_archives_are_told(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"fr.txt": TEXT})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.zip is no whole \.zip"):
        read(tmp_path)
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 4
    path.write_bytes(flipped)
    with pytest.raises(UserError, match=r"a\.zip: fr\.txt is damaged or cut off"):
        read(tmp_path)
    flipped = bytearray(whole)
    flipped[6] |= 1  # the flag of encryption, in the member's header and in the directory
    flipped[whole.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(flipped)
    with pytest.raises(UserError, match=r"fr\.txt cannot be read .*encrypted"):
        read(tmp_path)


def test_members_lead_nowhere(tmp_path: Path) -> None:
    """Whatever a member is called, it is read where it is and never written."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_zip(folder / "a.zip", {"../../fr.txt": b"un", "/etc/de.txt": b"eins", "x/es.txt": b"uno"})
    before = sorted(tmp_path.rglob("*"))
    assert read(folder) == [("de", ["eins"]), ("es", ["uno"]), ("fr", ["un"])]
    assert sorted(tmp_path.rglob("*")) == before
    assert [text.plain_name for text in members(folder / "a.zip")] == ["fr.txt", "de.txt", "es.txt"]


def test_a_bomb_is_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of half a gigabyte in half a megabyte is refused after as much as a document may have."""
    monkeypatch.setattr(pieces, "MAX_DOCUMENT_BYTES", 4 << 20)
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("fr.txt", "w") as member,
    ):
        for _ in range(128):
            member.write(b"\0" * (4 << 20))
    assert (tmp_path / "a.zip").stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="no blank line within"):
            read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "fr.txt"
    path.write_text("un")
    text = StoredText(path)
    before = text.state()
    with TextReader(text) as reader:
        reader.check_unchanged(before)
        path.write_text("deux")
        with pytest.raises(UserError, match=r"fr\.txt has changed since"):
            reader.check_unchanged(before)
    path.write_text("un")
    os.utime(path, ns=(before[1], before[1]))
    with TextReader(text) as reader:
        reader.check_unchanged(before)


def test_names_without_the_ending() -> None:
    assert StoredText(Path("a/wiki.fr.txt.zst")).plain_name == "wiki.fr.txt"
    assert StoredText(Path("a/fr.txt")).plain_name == "fr.txt"
    assert str(StoredText(Path("a.zip"), "b/fr.txt")) == "a.zip: b/fr.txt"
