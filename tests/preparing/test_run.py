"""From text to datasets: what is in the files, in which order, and on what it does not depend."""

from __future__ import annotations

import errno
import fcntl
import json
import random
import resource
import tracemalloc
from pathlib import Path

import pytest
from made_text import NUM_DOCUMENTS, contents, lines_of, make, model_beside, words, write_text

from deltalm_ds import files
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.errors import UserError
from deltalm_ds.preparing import layout
from deltalm_ds.preparing.work import work_folder
from deltalm_ds.text import pieces
from deltalm_ds.text.cleaning import CleaningSettings
from deltalm_ds.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("made") / "text")


@pytest.fixture(scope="module")
def tokenizer(text: Path) -> Tokenizer:
    return Tokenizer(model_beside(text))


def test_every_document_is_there_once(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    said = make(text, tmp_path / "out", validation_share=0.05)
    files = sorted(text.glob("fr.*.txt"))
    expected = [block.split("\n") for path in files for block in path.read_text().split("\n\n")]
    train = lines_of(tmp_path / "out/train/fr", tokenizer)
    valid = lines_of(tmp_path / "out/valid/fr", tokenizer)
    assert len(valid) == NUM_DOCUMENTS * 0.05
    assert sorted(train + valid) == sorted(expected)
    assert train != [document for document in expected if document in train], "not shuffled"
    (table,) = (part for part in said if part.startswith("source"))
    row = next(line.split() for line in table.splitlines() if line.startswith("fr"))
    num_tokens = sum(
        entry.tokens for entry in Corpus.open(tmp_path / "out").manifest.sources if entry.name == "fr"
    )
    num_characters = sum(len(line) for document in expected for line in document)
    assert row[1:4] == [str(NUM_DOCUMENTS), str(sum(map(len, expected))), f"{num_tokens:,}"]
    assert row[4:] == [f"{num_characters / num_tokens:.2f}", "0.000%", "5.00%"]


def test_pairs_are_two_sequences_that_belong_together(
    text: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    make(text, tmp_path / "out")
    sides = [(text / name).read_text().splitlines() for name in ("train.en", "train.fr")]
    train = lines_of(tmp_path / "out/train/en-fr", tokenizer)
    valid = lines_of(tmp_path / "out/valid/en-fr", tokenizer)
    assert sorted(train + valid) == sorted(map(list, zip(*sides, strict=True)))
    dataset = IndexedDataset(tmp_path / "out/train/en-fr")
    assert dataset.document_indices.tolist() == list(range(0, dataset.num_sequences + 1, 2))
    dataset.check()
    for index in range(0, dataset.num_sequences, 2):
        source, target = dataset.sequence(index).tolist(), dataset.sequence(index + 1).tolist()
        assert (source[0], source[-1], target[-1]) == (0, 2, 2)
        assert min(source[1:-1] + target[:-1]) > 2
    (source_,) = (
        source for source in Corpus.open(tmp_path / "out").sources("train") if source.kind == "pairs"
    )
    assert (source_.name, source_.languages, source_.weight) == ("en-fr", ("en", "fr"), 1.0)


def test_bytes_do_not_depend_on_workers_or_on_how_it_is_put_in_order(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 500)
    cleaning = CleaningSettings(duplicates="near")
    make(text, tmp_path / "one", cleaning=cleaning)
    monkeypatch.setattr(layout, "RANGE_BYTES", 1000)
    monkeypatch.setattr(layout, "PIECES_AT_ONCE", 3)
    monkeypatch.setattr("deltalm_ds.preparing.finishing.PIECES_AT_ONCE", 3)
    monkeypatch.setattr("deltalm_ds.preparing.writing.PIECES_AT_ONCE", 3)
    monkeypatch.setattr("deltalm_ds.preparing.duplicates.KEYS_AT_ONCE", 20)
    monkeypatch.setattr(pieces, "PIECES_OF_A_PART", 2)
    make(text, tmp_path / "small", cleaning=cleaning)
    assert contents(tmp_path / "one") == contents(tmp_path / "small")


def test_worker_processes_change_nothing(text: Path, tmp_path: Path) -> None:
    make(text, tmp_path / "one")
    make(text, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_source_does_not_depend_on_the_others(text: Path, tmp_path: Path) -> None:
    make(text, tmp_path / "all")
    make(text, tmp_path / "alone", names=("fr.*.txt",))
    alone, together = contents(tmp_path / "alone"), contents(tmp_path / "all")
    data = {name: content for name, content in alone.items() if name.endswith((".bin", ".idx"))}
    assert data.keys() == {f"{split}/fr.{end}" for split in ("train", "valid") for end in ("bin", "idx")}
    assert all(together[name] == content for name, content in data.items())


def test_the_seed_changes_the_order_and_the_split(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    make(text, tmp_path / "zero", validation_share=0.05)
    make(text, tmp_path / "one", validation_share=0.05, seed=1)
    for split in ("train", "valid"):
        orders = [lines_of(tmp_path / name / split / "fr", tokenizer) for name in ("zero", "one")]
        assert orders[0] != orders[1]
        assert sorted(orders[0]) != sorted(orders[1])


def test_files_of_a_source_are_shuffled_independently(
    text: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Documents 0..49 and 150..199 have the same places in their two files."""
    make(text, tmp_path / "out", validation_share=0)
    documents = lines_of(tmp_path / "out/train/fr", tokenizer)
    places = {int(lines[0].split()[0][1:]): place for place, lines in enumerate(documents)}
    assert sum(abs(places[number] - places[number + 150]) == 1 for number in range(50)) < 10


def test_held_out_inputs_are_the_validation(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    make(text, tmp_path / "out", names=("de*.txt",))
    corpus = Corpus.open(tmp_path / "out", verify=True)
    assert {(entry.split, entry.documents) for entry in corpus.manifest.sources} == {
        ("valid", 2),
        ("train", 5),
    }
    assert sorted(lines_of(tmp_path / "out/valid/de", tokenizer)) == [["held out"], ["held out too"]]
    make(text, tmp_path / "alone", names=("de.dev.txt",))
    assert [entry.split for entry in Corpus.open(tmp_path / "alone").manifest.sources] == ["valid"]


def test_no_split_and_nothing_left_aside(text: Path, tmp_path: Path) -> None:
    make(text, tmp_path / "out", validation_share=0, names=("fr.*.txt",))
    assert contents(tmp_path / "out").keys() == {
        *("manifest.json", "tokenizer.model", "train/fr.bin", "train/fr.idx"),
        *("train/fr.bin.sha256", "train/fr.idx.sha256"),
    }
    assert not work_folder(tmp_path / "out").exists()


@pytest.mark.parametrize("range_bytes", [100, 1000, 10**9])
def test_the_split_may_end_in_any_range_of_keys(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_bytes: int
) -> None:
    monkeypatch.setattr(layout, "RANGE_BYTES", range_bytes)
    make(text, tmp_path / "half", names=("fr.*.txt",), validation_share=0.5)
    make(text, tmp_path / "none", names=("fr.*.txt",), validation_share=0)
    halves, whole = contents(tmp_path / "half"), contents(tmp_path / "none")
    assert halves["valid/fr.bin"] + halves["train/fr.bin"] == whole["train/fr.bin"]
    for split in ("valid", "train"):
        IndexedDataset(tmp_path / "half" / split / "fr").check()
        assert IndexedDataset(tmp_path / "half" / split / "fr").num_documents == NUM_DOCUMENTS / 2


def test_lines_that_normalise_to_nothing_are_left_out(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "fr.txt").write_text("\u200b\nbonne\n\n\u200b\n\nsuite")
    (folder / "train.en").write_text("one\n\u200b\n")
    (folder / "train.fr").write_text("un\ndeux\n")
    said = make(folder, tmp_path / "out", model=model_beside(text))
    documents = {}
    for entry in Corpus.open(tmp_path / "out").manifest.sources:
        documents[entry.name] = documents.get(entry.name, 0) + entry.documents
    assert documents == {"fr": 2, "en-fr": 1}
    assert IndexedDataset(tmp_path / "out/train/fr").lengths.min() > 2
    (table,) = (part for part in said if part.startswith("left out of"))
    assert [line.split() for line in table.splitlines()[1:]] == [["en-fr", "2", "1"], ["fr", "3", "1"]]


def test_input_without_text_is_refused(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "fr.txt").write_text("bonne")
    for content in ("", "\n \n"):
        (folder / "de.txt").write_text(content)
        with pytest.raises(UserError, match=r"de\.txt: there is no text"):
            make(folder, tmp_path / "out", model=model_beside(text))


def test_a_write_that_fails_says_why(text: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            make(text, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG


def test_memory_does_not_grow_with_the_corpus(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the text, in as many documents: less than a twentieth of what is more of it in memory."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 40_000)
    monkeypatch.setattr(layout, "RANGE_BYTES", 40_000)
    monkeypatch.setattr(files, "_READ_BYTES", 40_000)
    generator = random.Random(1)
    document = "\n".join(words(generator, 50) for _ in range(40))
    peaks = []
    for count in (50, 200):
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / "fr.txt").write_text("\n\n".join([document] * count))
        make(folder, tmp_path / f"first-{count}", model=model_beside(text))  # what is kept for ever
        attempts = []
        for attempt in range(3):  # threads that other tests have left may allocate meanwhile
            tracemalloc.start()
            make(folder, tmp_path / f"{count}-{attempt}", model=model_beside(text))
            attempts.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        peaks.append(min(attempts))
    assert peaks[1] - peaks[0] < 0.05 * 150 * len(document)


def test_weights_of_a_recipe_are_in_the_manifest(text: Path, tmp_path: Path) -> None:
    recipe = text.parent / "recipe.yaml"
    sources = {
        "fr": {"weight": 2.5, "files": [{"path": "text/fr.*.txt"}]},
        "en-fr": {"files": [{"path": "text/train.*"}]},
    }
    recipe.write_text(json.dumps({"sources": sources}))  # JSON is YAML
    make(text.parent, tmp_path / "out", names=("recipe.yaml",), model=model_beside(text))
    assert {(source.name, source.weight) for source in Corpus.open(tmp_path / "out").sources("train")} == {
        *(("fr", 2.5), ("en-fr", 1.0))
    }


def test_another_prepare_of_the_same_folder_is_refused(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltalm_ds.preparing.work._SECONDS_FOR_LOCK", 0.2)
    work = work_folder(tmp_path / "out")
    work.mkdir()
    with (work / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another prepare is making"):
            make(text, tmp_path / "out")


def test_damage_is_named_by_its_place(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 1000)
    monkeypatch.setattr("deltalm_ds.data.hashes.CHUNK_BYTES", 1000)
    monkeypatch.setattr("deltalm_ds.preparing.finishing.CHUNK_BYTES", 1000)
    make(text, tmp_path / "out")
    Corpus.open(tmp_path / "out", verify=True)
    path = tmp_path / "out/train/en-fr.bin"
    content = bytearray(path.read_bytes())
    content[3_217] ^= 8
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"en-fr\.bin is damaged between byte 3,000 and 4,000 \(its hash"):
        Corpus.open(tmp_path / "out", verify=True)
    (tmp_path / "out/train/en-fr.bin.sha256").write_text("nonsense")
    with pytest.raises(UserError, match=r"en-fr\.bin is damaged \(its hash"):
        Corpus.open(tmp_path / "out", verify=True)
