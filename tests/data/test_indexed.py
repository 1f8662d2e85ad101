"""Megatron's indexed datasets: written, read, and refused when damaged."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.data.indexed_files import IndexedWriter, WrittenDataset
from deltalm_ds.errors import UserError

DOCUMENTS = [
    [np.array([5, 6, 7])],
    [np.array([8]), np.array([9, 10])],
    [np.array([], dtype=np.int64)],
    [np.arange(100, 150)],
]


def write(
    prefix: Path, documents: list[list[np.ndarray]] = DOCUMENTS, dtype: type = np.uint16
) -> WrittenDataset:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            writer.add_document(document)
    assert writer.written is not None
    return writer.written


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    write(tmp_path / "fr")
    return tmp_path / "fr"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint8])
def test_what_is_written_is_read(tmp_path: Path, dtype: type) -> None:
    written = write(tmp_path / "fr", dtype=dtype)
    dataset = IndexedDataset(tmp_path / "fr")
    dataset.check()
    sequences = [sequence for document in DOCUMENTS for sequence in document]
    assert dataset.dtype == dtype
    assert (dataset.num_sequences, dataset.num_documents, dataset.num_tokens) == (5, 4, 56)
    assert len(dataset) == 5
    assert dataset.lengths.tolist() == [3, 1, 2, 0, 50]
    assert dataset.document_indices.tolist() == [0, 1, 3, 4, 5]
    for index, sequence in enumerate(sequences):
        assert dataset.sequence(index).tolist() == sequence.tolist()
        assert dataset.sequence(index).dtype == dtype
    assert [dataset.sequence_start(index) for index in range(6)] == [0, 3, 4, 6, 6, 56]
    assert dataset.tokens(2, 7).tolist() == [7, 8, 9, 10, 100]
    assert (written.documents, written.sequences, written.tokens) == (4, 5, 56)
    for suffix, size, digest in (
        ("bin", written.bin_bytes, written.bin_sha256),
        ("idx", written.idx_bytes, written.idx_sha256),
    ):
        content = (tmp_path / f"fr.{suffix}").read_bytes()
        of_chunk = hashlib.sha256(content).hexdigest()
        assert (len(content), hashlib.sha256(of_chunk.encode()).hexdigest()) == (size, digest)
    assert {path.name for path in tmp_path.iterdir()} == {"fr.bin", "fr.idx"}


def test_first_sequence_from_is_the_first_that_starts_there_or_later(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(0, 5, 300)
    write(tmp_path / "x", [[np.arange(length)] for length in lengths], np.int32)
    dataset = IndexedDataset(tmp_path / "x")
    starts = np.cumsum(lengths) - lengths
    for offset in range(-1, int(lengths.sum()) + 3):
        assert dataset.first_sequence_from(offset) == np.searchsorted(starts, offset)


def test_reading_is_a_view_that_cannot_be_written(prefix: Path) -> None:
    sequence = IndexedDataset(prefix).sequence(0)
    assert not sequence.flags.writeable
    assert not sequence.flags.owndata


@pytest.mark.parametrize("bounds", [(-1, 3), (0, 57), (4, 3)])
def test_tokens_outside_are_refused(prefix: Path, bounds: tuple[int, int]) -> None:
    with pytest.raises(IndexError):
        IndexedDataset(prefix).tokens(*bounds)


@pytest.mark.parametrize("index", [-1, 5])
def test_sequences_outside_are_refused(prefix: Path, index: int) -> None:
    with pytest.raises(IndexError):
        IndexedDataset(prefix).sequence(index)


@pytest.mark.parametrize("number", [-1, 4])
def test_documents_outside_are_refused(prefix: Path, number: int) -> None:
    with pytest.raises(IndexError):
        IndexedDataset(prefix).document(number)


def test_documents_are_their_sequences(prefix: Path) -> None:
    dataset = IndexedDataset(prefix)
    assert [list(dataset.document(number)) for number in range(4)] == [[0], [1, 2], [3], [4]]


def test_reading_a_flipped_index_gives_a_users_error(prefix: Path) -> None:
    """A corpus too large to be hashed: reading gives tokens or says that the index is damaged."""
    path = Path(f"{prefix}.idx")
    content = path.read_bytes()
    lengths, pointers, indices = 34, 34 + 4 * 5, 34 + 12 * 5
    refused: dict[int, list[str]] = {lengths: [], pointers: [], indices: []}
    for bit in range(8 * lengths, 8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            dataset = IndexedDataset(prefix)
            for number in range(dataset.num_documents):
                for index in dataset.document(number):
                    dataset.sequence(index)
        except UserError as error:
            refused[max(start for start in refused if bit // 8 >= start)].append(str(error))
    assert all("prepare the data again" in message for messages in refused.values() for message in messages)
    assert len(refused[lengths]) == 8 * 4 * 5
    assert len(refused[pointers]) == 8 * 8 * 5
    assert len(refused[indices]) > 8 * 8 * 5 * 0.9  # the others move a boundary of documents


def test_a_pickled_dataset_is_its_name(prefix: Path) -> None:
    content = pickle.dumps(IndexedDataset(prefix))
    assert len(content) < 500
    assert pickle.loads(content).sequence(0).tolist() == [5, 6, 7]


def test_no_documents(tmp_path: Path) -> None:
    write(tmp_path / "none", [])
    dataset = IndexedDataset(tmp_path / "none")
    dataset.check()
    assert (dataset.num_sequences, dataset.num_documents, dataset.num_tokens) == (0, 0, 0)
    assert dataset.first_sequence_from(0) == 0


def test_a_failed_write_leaves_the_old_files(prefix: Path) -> None:
    before = {path: path.read_bytes() for path in prefix.parent.iterdir()}
    writer = IndexedWriter(prefix, np.uint16)

    def fail() -> None:
        with writer:
            writer.add_document([np.arange(3)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert writer.written is None
    assert {path: path.read_bytes() for path in prefix.parent.iterdir()} == before


def test_tokens_that_do_not_fit_the_dtype_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="70000"), IndexedWriter(tmp_path / "x", np.uint16) as writer:
        writer.add_document([np.array([1, 70_000])])


def test_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float32"):
        IndexedWriter(tmp_path / "x", np.float32)


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_missing_files_are_named(prefix: Path, suffix: str) -> None:
    path = Path(f"{prefix}.{suffix}")
    path.unlink()
    with pytest.raises(UserError, match=rf"fr\.{suffix} is missing"):
        IndexedDataset(prefix)


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_every_truncation_is_found(prefix: Path, suffix: str) -> None:
    path = Path(f"{prefix}.{suffix}")
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"fr\.(bin|idx)"):
            IndexedDataset(prefix)
    path.write_bytes(content + b"\0\0")
    with pytest.raises(UserError, match=r"fr\.(bin|idx)"):
        IndexedDataset(prefix)


def test_every_flipped_bit_of_the_index_is_found(prefix: Path) -> None:
    """All of them but those that move a boundary of documents: these need the manifest's hash."""
    path = Path(f"{prefix}.idx")
    content = path.read_bytes()
    missed = []
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            IndexedDataset(prefix).check()
        except UserError:
            continue
        missed.append(bit // 8)
    first_boundary = len(content) - 8 * 4
    assert all(first_boundary <= byte < len(content) - 8 for byte in missed)


def test_counts_are_checked_before_anything_is_mapped(prefix: Path) -> None:
    path = Path(f"{prefix}.idx")
    header = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, 2**60, 2**60)
    path.write_bytes(header + path.read_bytes()[len(header) :])
    with pytest.raises(UserError, match=r"1,152,921,504,606,846,976 sequences.*truncated or damaged"):
        IndexedDataset(prefix)


@pytest.mark.parametrize(("version", "code"), [(2, 8), (1, 6), (1, 99)])
def test_other_versions_and_floats_are_refused(prefix: Path, version: int, code: int) -> None:
    path = Path(f"{prefix}.idx")
    content = path.read_bytes()
    path.write_bytes(content[:9] + struct.pack("<QB", version, code) + content[18:])
    with pytest.raises(UserError, match="only version 1 of integers"):
        IndexedDataset(prefix)


def test_other_files_are_refused(prefix: Path) -> None:
    Path(f"{prefix}.idx").write_bytes(b"TNTIDX\x00\x00" + bytes(100))
    with pytest.raises(UserError, match="not a Megatron index"):
        IndexedDataset(prefix)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_megatron_reads_ours(tmp_path: Path, dtype: type) -> None:
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    write(tmp_path / "fr", dtype=dtype)
    theirs = megatron.IndexedDataset(str(tmp_path / "fr"))
    assert len(theirs) == 5
    assert theirs.document_indices.tolist() == [0, 1, 3, 4, 5]
    assert theirs.sequence_lengths.tolist() == [3, 1, 2, 0, 50]
    assert [theirs[index].tolist() for index in (0, 1, 2, 4)] == [
        DOCUMENTS[0][0].tolist(),
        [8],
        [9, 10],
        list(range(100, 150)),
    ]
    assert theirs[0].dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_ours_reads_megatrons_and_bytes_are_equal(tmp_path: Path, dtype: type) -> None:
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    torch = pytest.importorskip("torch")
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype)
    for document in DOCUMENTS:
        for sequence in document:
            builder.add_item(torch.from_numpy(np.asarray(sequence, dtype=np.int64)))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    dataset = IndexedDataset(tmp_path / "theirs")
    dataset.check()
    assert dataset.document_indices.tolist() == [0, 1, 3, 4, 5]
    assert dataset.sequence(4).tolist() == list(range(100, 150))
    write(tmp_path / "ours", dtype=dtype)
    for suffix in ("bin", "idx"):
        assert (tmp_path / f"ours.{suffix}").read_bytes() == (tmp_path / f"theirs.{suffix}").read_bytes()
