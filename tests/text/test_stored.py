"""Compressed text is read as if it were not, and damage to it is told."""

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from deltalm_ds.errors import UserError
from deltalm_ds.text.compressed import SUFFIXES, TextFile, plain_path
from deltalm_ds.text.inputs import TextOptions, understand
from deltalm_ds.text.readers import parse_block, read_blocks

COMPRESS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: zstandard.ZstdCompressor().compress(content),
}
# Some of it does not compress, so that there is much to cut and to damage.
TEXT = "".join(f"line {i} {hash((i, 7)) % 10**9} é\n" + "\n" * (i % 3 == 0) for i in range(3000)).encode()


def read(folder: Path) -> list[tuple]:
    inputs, _ = understand([folder], TextOptions())
    blocks = list(read_blocks(inputs))
    stored = sum(path.stat().st_size for path in folder.iterdir())
    assert sum(block.stored_bytes for block in blocks) == stored
    return [(document.source, document.lines) for block in blocks for document in parse_block(block)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_and_pairs_are_the_same_as_plain(tmp_path: Path, suffix: str) -> None:
    files = {"fr.txt": TEXT, "wiki.de.jsonl": b'{"text": "ein Satz"}\n', "a.en": b"x\n", "a.de": b"y\n"}
    for folder, compress in (("plain", None), ("compressed", COMPRESS[suffix])):
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            name, content = (name + suffix, compress(content)) if compress else (name, content)
            (tmp_path / folder / name).write_bytes(content)
    assert read(tmp_path / "compressed") == read(tmp_path / "plain")


def test_one_side_of_pairs_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "train.en.xz").write_bytes(lzma.compress(b"one\ntwo\n"))
    (tmp_path / "train.fr").write_bytes(b"un\ndeux\n")
    assert read(tmp_path) == [("en-fr", ["one", "un"]), ("en-fr", ["two", "deux"])]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_one_after_the_other_are_one_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"fr.txt{suffix}"
    path.write_bytes(COMPRESS[suffix](TEXT) + COMPRESS[suffix](b"the end\n"))
    with TextFile(path) as file:
        content = b"".join(iter(lambda: file.readline(1 << 20), b""))
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


def test_paths_without_the_ending() -> None:
    assert plain_path(Path("a/wiki.fr.txt.zst")) == Path("a/wiki.fr.txt")
    assert plain_path(Path("a/fr.txt")) == Path("a/fr.txt")
