"""Opening a prepared folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_corpus import write_random_corpus

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.indexed_files import IndexedWriter
from deltalm_ds.errors import UserError
from deltalm_ds.text.vocabulary import Vocabulary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_corpus(tmp_path / "corpus")


@pytest.mark.parametrize("verify", [False, True])
def test_open(folder: Path, verify: bool) -> None:
    seen: list[int] = []
    corpus = Corpus.open(folder, verify, seen.append)
    assert corpus.vocabulary == Vocabulary(200)
    assert corpus.fingerprint == corpus.manifest.fingerprint
    assert corpus.tokenizer_path == folder / "tokenizer.model"
    train = corpus.sources("train")
    assert [(source.name, source.kind, source.languages, source.split) for source in train] == [
        ("de", "monolingual", ("de",), "train"),
        ("fr", "monolingual", ("fr",), "train"),
        ("de-fr", "pairs", ("de", "fr"), "train"),
    ]
    assert [source.name for source in corpus.sources("valid")] == ["de", "de-fr"]
    assert all(source.num_tokens == source.dataset.num_tokens > 0 for source in train)
    assert corpus.num_bytes == sum(path.stat().st_size for path in folder.glob("*/*"))
    assert sum(seen) == (corpus.num_bytes if verify else 0)


@pytest.mark.parametrize("name", ["tokenizer.model", "train/fr.bin", "train/fr.idx", "valid/de-fr.idx"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        Corpus.open(folder)


@pytest.mark.parametrize("name", ["train/fr.bin", "train/fr.idx"])
@pytest.mark.parametrize("change", [-1, 1])
def test_files_of_another_size_are_named(folder: Path, name: str, change: int) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] if change < 0 else content + b"\0")
    with pytest.raises(UserError, match=rf"{name} has {len(content) + change:,} bytes"):
        Corpus.open(folder)


@pytest.mark.parametrize("name", ["train/fr.bin", "train/fr.idx", "valid/de.bin", "valid/de.idx"])
def test_a_flipped_bit_is_found_by_verify(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        Corpus.open(folder, verify=True)


def test_another_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(b"another tokenizer")
    with pytest.raises(UserError, match=r"tokenizer\.model is not the tokenizer that made the data"):
        Corpus.open(folder)


def test_an_index_that_says_other_than_the_manifest_is_refused(folder: Path) -> None:
    """As many bytes as before, but of three documents more and two sequences less."""
    dataset = Corpus.open(folder).sources("train")[0].dataset
    sizes = [path.stat().st_size for path in (folder / "train/de.bin", folder / "train/de.idx")]
    tokens = dataset.tokens(0, dataset.num_tokens).copy()
    num_sequences = dataset.num_sequences - 2
    with IndexedWriter(folder / "train/de", dataset.dtype) as writer:
        writer.add_document([tokens[num_sequences - 1 :], *tokens[: num_sequences - 1].reshape(-1, 1)])
        for _ in range(dataset.num_documents + 2):
            writer.add_document([])
    resized = [path.stat().st_size for path in (folder / "train/de.bin", folder / "train/de.idx")]
    assert resized == sizes
    with pytest.raises(UserError, match=r"de\.idx does not describe what the manifest says"):
        Corpus.open(folder)
