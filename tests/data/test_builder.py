"""From text to datasets: what is in the files, in which order, and on what it does not depend."""

from __future__ import annotations

import errno
import random
import resource
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from deltalm_ds.data.builder import BuiltSource, ValidationSplit, build_sources
from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.processes import Workers
from deltalm_ds.text import readers
from deltalm_ds.text.inputs import TextOptions, understand
from deltalm_ds.text.readers import read_blocks
from deltalm_ds.text.tokenizer import Tokenizer, train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

NUM_DOCUMENTS, NUM_PAIRS = 200, 300


def words(generator: random.Random, count: int) -> str:
    return " ".join("".join(generator.choices("aeioubdlmnrst", k=4)) for _ in range(count))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of monolingual documents in two files, pairs, held-out text, and a tokenizer beside it."""
    folder = tmp_path_factory.mktemp("text")
    generator = random.Random(0)
    documents = [
        "\n".join(f"d{number} {words(generator, 5)}" for _ in range(1 + number % 3))
        for number in range(NUM_DOCUMENTS)
    ]
    (folder / "fr.0.txt").write_text("\n\n".join(documents[:150]))
    (folder / "fr.1.txt").write_text("\n\n".join(documents[150:]))
    (folder / "train.en").write_text("".join(f"s{n} {words(generator, 3)}\n" for n in range(NUM_PAIRS)))
    (folder / "train.fr").write_text("".join(f"t{n} {words(generator, 4)}\n" for n in range(NUM_PAIRS)))
    (folder / "de.txt").write_text("\n\n".join(words(generator, 6) for _ in range(5)))
    (folder / "de.dev.txt").write_text("held out\n\nheld out too")
    lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
    (folder.parent / "made.model").write_bytes(train_tokenizer(lines, 150, 1.0))
    return folder


def build(
    text: Path,
    output: Path,
    num_workers: int = 1,
    seed: int = 0,
    validation: ValidationSplit | None = None,
    names: Sequence[str] = ("*",),
) -> dict[str, BuiltSource]:
    model = text.parent / "made.model"
    inputs, _ = understand([text / name for name in names], TextOptions())
    output.mkdir()
    validation = validation or ValidationSplit(share=0.05, max_documents=100)
    with Workers(num_workers) as workers:
        sources = build_sources(
            read_blocks(inputs), output, model, Vocabulary(150), seed, validation, workers, lambda _: None
        )
    return {source.name: source for source in sources}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(prefix: Path, tokenizer: Tokenizer) -> list[list[str]]:
    """The lines of every document, decoded; a pair's sides are its lines."""
    dataset = IndexedDataset(prefix)
    bounds = dataset.document_indices.tolist()
    documents = []
    for first, last in pairwise(bounds):
        tokens = np.concatenate([dataset.sequence(index) for index in range(first, last)])
        assert tokens[0] == Vocabulary.BOS
        assert tokens[-1] == Vocabulary.EOS
        ends = np.flatnonzero(tokens == Vocabulary.EOS)
        starts = [1, *(ends[:-1] + 1)]
        documents.append([tokenizer.decode(tokens[a:b]) for a, b in zip(starts, ends, strict=True)])
    return documents


def test_every_document_is_there_once(text: Path, tmp_path: Path) -> None:
    sources = build(text, tmp_path / "out")
    tokenizer = Tokenizer(text.parent / "made.model")
    files = sorted(text.glob("fr.*.txt"))
    expected = [block.split("\n") for path in files for block in path.read_text().split("\n\n")]
    train = lines_of(tmp_path / "out/train/fr", tokenizer)
    valid = lines_of(tmp_path / "out/valid/fr", tokenizer)
    assert len(valid) == NUM_DOCUMENTS * 0.05
    assert sorted(train + valid) == sorted(expected)
    assert train != [document for document in expected if document in train], "not shuffled"
    statistics = sources["fr"].statistics
    assert statistics.documents == NUM_DOCUMENTS
    assert statistics.lines == sum(map(len, expected))
    assert statistics.text_bytes == sum(len(line) for document in expected for line in document)
    assert statistics.tokens == sum(entry.tokens for entry in sources["fr"].entries)
    assert statistics.unknown == 0


def test_pairs_are_two_sequences_that_belong_together(text: Path, tmp_path: Path) -> None:
    sources = build(text, tmp_path / "out")
    tokenizer = Tokenizer(text.parent / "made.model")
    expected = [
        list(pair)
        for pair in zip(
            (text / "train.en").read_text().splitlines(),
            (text / "train.fr").read_text().splitlines(),
            strict=True,
        )
    ]
    train = lines_of(tmp_path / "out/train/en-fr", tokenizer)
    valid = lines_of(tmp_path / "out/valid/en-fr", tokenizer)
    assert sorted(train + valid) == sorted(expected)
    dataset = IndexedDataset(tmp_path / "out/train/en-fr")
    assert dataset.document_indices.tolist() == list(range(0, dataset.num_sequences + 1, 2))
    for index in range(0, dataset.num_sequences, 2):
        source, target = dataset.sequence(index).tolist(), dataset.sequence(index + 1).tolist()
        assert (source[0], source[-1], target[-1]) == (0, 2, 2)
        assert min(source[1:-1] + target[:-1]) > 2
    entry = sources["en-fr"].entries[1]
    assert (entry.kind, entry.languages, entry.split) == ("pairs", ("en", "fr"), "train")
    assert (entry.documents, entry.sequences) == (dataset.num_documents, dataset.num_sequences)


def test_bytes_do_not_depend_on_workers_or_blocks(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(text, tmp_path / "one")
    monkeypatch.setattr(readers, "BLOCK_BYTES", 500)
    build(text, tmp_path / "small")
    build(text, tmp_path / "two", num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "small") == contents(tmp_path / "two")


def test_a_source_does_not_depend_on_the_others(text: Path, tmp_path: Path) -> None:
    build(text, tmp_path / "all")
    build(text, tmp_path / "alone", names=("fr.*.txt",))
    alone, together = contents(tmp_path / "alone"), contents(tmp_path / "all")
    assert alone.keys() == {
        f"{split}/fr.{suffix}" for split in ("train", "valid") for suffix in ("bin", "idx")
    }
    assert all(together[name] == content for name, content in alone.items())


def test_the_seed_changes_the_order_and_the_split(text: Path, tmp_path: Path) -> None:
    build(text, tmp_path / "zero")
    build(text, tmp_path / "one", seed=1)
    tokenizer = Tokenizer(text.parent / "made.model")
    for split in ("train", "valid"):
        orders = [lines_of(tmp_path / name / split / "fr", tokenizer) for name in ("zero", "one")]
        assert orders[0] != orders[1]
        assert sorted(orders[0]) != sorted(orders[1])


def test_files_of_a_source_are_shuffled_independently(text: Path, tmp_path: Path) -> None:
    """Documents 0..49 and 150..199 begin at the same lines of their two files."""
    build(text, tmp_path / "out", validation=ValidationSplit(share=0, max_documents=1))
    documents = lines_of(tmp_path / "out/train/fr", Tokenizer(text.parent / "made.model"))
    places = {int(lines[0].split()[0][1:]): place for place, lines in enumerate(documents)}
    assert sum(abs(places[number] - places[number + 150]) == 1 for number in range(50)) < 10


def test_held_out_inputs_are_the_validation(text: Path, tmp_path: Path) -> None:
    sources = build(text, tmp_path / "out", names=("de*.txt",))
    assert [(entry.split, entry.documents) for entry in sources["de"].entries] == [("valid", 2), ("train", 5)]
    tokenizer = Tokenizer(text.parent / "made.model")
    assert sorted(lines_of(tmp_path / "out/valid/de", tokenizer)) == [["held out"], ["held out too"]]
    sources = build(text, tmp_path / "alone", names=("de.dev.txt",))
    assert [entry.split for entry in sources["de"].entries] == ["valid"]


def test_no_split_and_nothing_left_aside(text: Path, tmp_path: Path) -> None:
    validation = ValidationSplit(share=0, max_documents=100)
    sources = build(text, tmp_path / "out", validation=validation, names=("fr.*.txt",))
    assert [(entry.split, entry.documents) for entry in sources["fr"].entries] == [("train", NUM_DOCUMENTS)]
    assert contents(tmp_path / "out").keys() == {"train/fr.bin", "train/fr.idx"}


@pytest.mark.parametrize(
    ("num_documents", "expected"), [(0, 0), (1, 0), (2, 1), (50, 1), (1000, 5), (10_000_000, 2000)]
)
def test_size_of_the_validation_split(num_documents: int, expected: int) -> None:
    assert ValidationSplit(share=0.005, max_documents=2000).count(num_documents) == expected


def test_validation_never_takes_everything() -> None:
    assert ValidationSplit(share=1.0, max_documents=2000).count(10) == 9


def test_lines_that_normalise_to_nothing_are_left_out(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "fr.txt").write_text("\u200b\nbonne\n\n\u200b\n\nsuite")
    (folder / "train.en").write_text("one\n\u200b\n")
    (folder / "train.fr").write_text("un\ndeux\n")
    (tmp_path / "made.model").write_bytes((text.parent / "made.model").read_bytes())
    sources = build(folder, tmp_path / "out")
    assert {name: source.statistics.documents for name, source in sources.items()} == {"fr": 2, "en-fr": 1}
    assert IndexedDataset(tmp_path / "out/train/fr").lengths.min() > 2


def test_a_write_that_fails_says_why(text: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; none of them fits, the spill is the first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            build(text, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG


def test_memory_holds_no_text(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times the text, in as many documents: less than a tenth of it more in memory."""
    monkeypatch.setattr(readers, "BLOCK_BYTES", 20_000)
    generator = random.Random(1)
    document = "\n".join(words(generator, 50) for _ in range(40))
    peaks = []
    for count in (50, 150):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "fr.txt").write_text("\n\n".join([document] * count))
        (tmp_path / "made.model").write_bytes((text.parent / "made.model").read_bytes())
        build(
            folder, tmp_path / f"first-{count}"
        )  # what is kept for ever, the tokenizer, is there from here on
        tracemalloc.start()
        build(folder, tmp_path / f"second-{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.1 * 100 * len(document)
