"""Compressed text is read as if it were not, damage to it is told, and memory is bounded."""

from __future__ import annotations

import io
import os
import random
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_files import COMPRESS, inputs_of, read, write, write_zip

from deltalm_ds.errors import UserError
from deltalm_ds.text import pieces
from deltalm_ds.text.pieces import parts_of, read_pieces
from deltalm_ds.text.stored import SUFFIXES, StoredText, TextReader, members

# Some of it does not compress, so that there is much to cut and to damage.
TEXT = "".join(
    f"line {number} {random.Random(number).randrange(10**9)} é\n" + "\n" * (number % 3 == 0)
    for number in range(3000)
).encode()


def content_of(text: StoredText, size: int = 1000) -> bytes:
    with TextReader(text) as reader:
        return b"".join(iter(lambda: reader.read(size), b""))


@pytest.mark.parametrize("size", [1, 4096, 1 << 20])
@pytest.mark.parametrize("suffix", COMPRESS)
def test_any_steps_give_the_text(tmp_path: Path, suffix: str, size: int) -> None:
    content = TEXT[: 20_000 if size == 1 else None]
    text = StoredText(write(tmp_path / f"fr.txt{suffix}", content))
    assert content_of(text, size) == content
    assert text.is_plain is (suffix == "")
    assert text.plain_name == "fr.txt"
    assert text.stored_bytes == text.state()[0] == text.path.stat().st_size


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_texts(tmp_path: Path, compression: int) -> None:
    others = {"b/": b"", "a/fr.txt": TEXT[::-1]}
    path = write_zip(tmp_path / "a.zip", {**others, "b/fr.txt": TEXT}, compression)
    first, second = members(path)
    assert (first.member, second.member, second.plain_name) == ("a/fr.txt", "b/fr.txt", "fr.txt")
    assert (content_of(first), content_of(second)) == (TEXT[::-1], TEXT)
    assert second.folder == path / "b"
    assert not second.is_plain
    assert len(TEXT) / 4 < second.stored_bytes < path.stat().st_size
    assert str(second) == f"{path}: b/fr.txt"
    with TextReader(second) as reader:
        assert reader.read(len(TEXT) + 1) == TEXT
        assert 0 <= reader.stored_bytes_read - second.stored_bytes < 100  # its header


def test_one_side_of_pairs_may_be_compressed(tmp_path: Path) -> None:
    write(tmp_path / "train.en.xz", "one\ntwo\n")
    write(tmp_path / "train.fr", "un\ndeux\n")
    assert read(inputs_of(tmp_path)) == [("en-fr", ["one", "un"]), ("en-fr", ["two", "deux"])]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_one_after_the_other_are_one_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fr.txt{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT) + COMPRESS[suffix](b"the end\n"))
    assert content_of(StoredText(path)) == TEXT + b"the end\n"


@pytest.mark.parametrize("cut", [0.0001, 0.5, 0.999])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_was_cut_off_is_told(tmp_path: Path, suffix: str, cut: float) -> None:
    whole = COMPRESS[suffix](TEXT)
    path = tmp_path / f"fr.txt{suffix}"
    path.write_bytes(whole[: max(2, int(cut * len(whole)))])
    with pytest.raises(UserError, match=rf"fr\.txt\{suffix} is damaged or cut off: after [\d,]+ bytes"):
        read(inputs_of(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_compressed_is_told(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"fr.txt{suffix}").write_bytes(b"plain text under a wrong name\n" * 20)
    with pytest.raises(UserError, match="after 0 bytes of text it cannot be decompressed"):
        read(inputs_of(tmp_path))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_flipped_bit_is_told(tmp_path: Path, suffix: str) -> None:
    """Both formats hold checksums; .zst has one only where its writer was told to."""
    content = bytearray(COMPRESS[suffix](TEXT))
    content[len(content) // 2] ^= 4
    (tmp_path / f"fr.txt{suffix}").write_bytes(content)
    with pytest.raises(UserError, match="is damaged or cut off"):
        read(inputs_of(tmp_path))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_in_a_member_is_told(tmp_path: Path, compression: int) -> None:
    path = write_zip(tmp_path / "a.zip", {"fr.txt": TEXT}, compression)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip: fr\.txt is damaged or cut off"):
        read(inputs_of(path))


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -30])
def test_an_archive_that_was_cut_off_is_told(tmp_path: Path, cut: int) -> None:
    path = write_zip(tmp_path / "a.zip", {"fr.txt": TEXT})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"a\.zip is no whole \.zip .*fetch it again"):
        inputs_of(path)


def test_an_encrypted_member_is_told(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"fr.txt": TEXT})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip: fr\.txt cannot be read .*encrypted.*unpack"):
        read(inputs_of(path))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_memory_cannot_be_bounded_for_are_refused(tmp_path: Path, compression: int) -> None:
    path = write_zip(tmp_path / "a.zip", {"fr.txt": TEXT}, compression)
    with pytest.raises(UserError, match=r"fr\.txt cannot be read \(neither stored nor deflated\): unpack"):
        read(inputs_of(path))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([*SUFFIXES, ".zip"]))
def test_damage_never_is_another_error(data: st.DataObject, suffix: str) -> None:
    small = TEXT[:300]
    if suffix == ".zip":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fr.txt", small)
        content = bytearray(file.getvalue())
    else:
        content = bytearray(COMPRESS[suffix](small))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(len(content) // 2, len(content))) :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"fr.txt{suffix}"
        path.write_bytes(content)
        message = str(path)
        try:
            for text in members(path) if suffix == ".zip" else [StoredText(path)]:
                text.state()
                assert text.stored_bytes >= 0
                content_of(text)
        except UserError as error:
            message = str(error)
        assert str(path) in message


@pytest.mark.parametrize("name", ["../../out.fr.txt", "/etc/out.fr.txt", "a/../../out.fr.txt"])
def test_members_are_never_written_anywhere(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "in" / "deep" / "a.zip", {name: "un\n"})
    before = sorted(tmp_path.rglob("*"))
    assert read(inputs_of(path)) == [("fr", ["un"])]
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/etc/out.fr.txt").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_the_right_to_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "fr.txt", "un")
    path.chmod(0)
    with pytest.raises(UserError, match=r"fr\.txt cannot be read: Permission denied"):
        read(inputs_of(path))


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fr.txt").mkdir()
    with pytest.raises(UserError, match=r"fr\.txt cannot be read: Is a directory"):
        content_of(StoredText(tmp_path / "fr.txt"))


@pytest.mark.parametrize("suffix", [".zip", *SUFFIXES])
def test_a_bomb_is_read_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """1 GB of zeros in a .zip of 4 MB, 256 MB in others."""
    megabytes = 1024 if suffix == ".zip" else 256
    path = tmp_path / f"fr.txt{suffix}"
    block = bytes(1 << 20)
    if suffix == ".zip":
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("fr.txt", "w") as file,
        ):
            for _ in range(megabytes):
                file.write(block)
    else:
        path.write_bytes(COMPRESS[suffix](block * megabytes))
    (entry,) = inputs_of(path)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1 << 20)
    monkeypatch.setattr(pieces, "MAX_DOCUMENT_BYTES", 4 << 20)
    tracemalloc.start()
    try:
        with TextReader(entry.files[0]) as reader:
            assert sum(len(reader.read(1 << 20)) for _ in range(megabytes)) == megabytes << 20
            assert reader.read(1) == b""
        with pytest.raises(UserError, match="no blank line within"):
            list(read_pieces(parts_of(entry)[0]))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A .zst of nothing but zeros gives 32 MB of them for the 1,024 bytes that are decompressed at once.
    assert most < (80 << 20 if suffix == ".zst" else 32 << 20)
