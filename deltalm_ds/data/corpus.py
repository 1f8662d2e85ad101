"""A prepared folder, opened: its manifest, its vocabulary and its datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deltalm_ds.data.hashes import damaged_place
from deltalm_ds.data.indexed import IndexedDataset, bin_path, idx_path
from deltalm_ds.data.manifest import Kind, Manifest, SourceEntry, Split
from deltalm_ds.errors import UserError
from deltalm_ds.files import chunk_hash, num_chunks, sha256_of, tree_hash
from deltalm_ds.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset of a corpus."""

    name: str
    """The language, "fr", or the pair, "en-fr"."""
    kind: Kind
    """"monolingual" or "pairs"."""
    languages: tuple[str, ...]
    """One language, or the languages of source and target."""
    split: Split
    """"train" or "valid"."""
    dataset: IndexedDataset
    """Its tokens. Monolingual: a sequence a document, `<s> line </s> line </s>`. Pairs: sequences 2i and
    2i + 1 are `<s> source </s>` and `target </s>` of pair i."""
    num_tokens: int
    """Tokens of the dataset."""
    weight: float = 1.0
    """What its share of the mixture is multiplied by."""


class Corpus:
    """An opened prepared folder. Get one by `Corpus.open`."""

    def __init__(self, path: Path, manifest: Manifest, sources: list[Source]) -> None:
        self.path = path
        self.manifest = manifest
        self.vocabulary: Vocabulary = manifest.tokenizer.vocabulary
        self.tokenizer_path = path / manifest.tokenizer.file
        self.fingerprint = manifest.fingerprint
        """Changes with any byte of the data or the tokenizer, and with nothing else."""
        self._sources = sources

    @classmethod
    def open(
        cls, path: str | Path, verify: bool = False, progress: Callable[[int], object] | None = None
    ) -> Corpus:
        """Open the prepared folder `path`.

        The tokenizer's hash and every file's size are always checked. `verify` also hashes every file and
        reads every index, telling `progress` the bytes as it goes. UserError names the file that is missing,
        truncated, damaged or not the manifest's.
        """
        path = Path(path)
        manifest = Manifest.read(path)
        _check_tokenizer(path, manifest)
        return cls(
            path,
            manifest,
            [_open_source(path, manifest, entry, verify, progress) for entry in manifest.sources],
        )

    def sources(self, split: Split) -> list[Source]:
        """The datasets of one split, monolingual ones first, each kind by name."""
        chosen = [source for source in self._sources if source.split == split]
        return sorted(chosen, key=lambda source: (source.kind, source.name))

    @property
    def num_bytes(self) -> int:
        """Size of all .bin and .idx files: what `verify` reads."""
        return sum(entry.bin_bytes + entry.idx_bytes for entry in self.manifest.sources)


def _check_tokenizer(path: Path, manifest: Manifest) -> None:
    file = path / manifest.tokenizer.file
    if not file.is_file():
        raise UserError(f"{file} is missing: prepare the data again")
    if sha256_of(file) != manifest.tokenizer.sha256:
        raise UserError(
            f"{file} is not the tokenizer that made the data (its hash differs from the manifest's): "
            "put the original back or prepare the data again"
        )


def _open_source(
    path: Path,
    manifest: Manifest,
    entry: SourceEntry,
    verify: bool,
    progress: Callable[[int], object] | None,
) -> Source:
    prefix = path / entry.prefix
    for file, num_bytes in ((bin_path(prefix), entry.bin_bytes), (idx_path(prefix), entry.idx_bytes)):
        if not file.is_file():
            raise UserError(f"{file} is missing: prepare the data again")
        if file.stat().st_size != num_bytes:
            raise UserError(
                f"{file} has {file.stat().st_size:,} bytes and the manifest says {num_bytes:,}: "
                "it is truncated or of another preparation; prepare the data again"
            )
    if verify:
        for file, expected in ((bin_path(prefix), entry.bin_sha256), (idx_path(prefix), entry.idx_sha256)):
            hashes = [chunk_hash(file, number, progress) for number in range(num_chunks(file.stat().st_size))]
            if tree_hash(hashes) != expected:
                raise UserError(
                    f"{file} is damaged{damaged_place(file, hashes, expected)} (its hash differs from the "
                    "manifest's): prepare the data again"
                )
    dataset = IndexedDataset(prefix)
    found = (dataset.dtype.name, dataset.num_documents, dataset.num_sequences, dataset.num_tokens)
    if found != (manifest.dtype, entry.documents, entry.sequences, entry.tokens):
        raise UserError(
            f"{idx_path(prefix)} does not describe what the manifest says: prepare the data again"
        )
    if verify:
        dataset.check()
    return Source(
        name=entry.name,
        kind=entry.kind,
        languages=entry.languages,
        split=entry.split,
        dataset=dataset,
        num_tokens=entry.tokens,
        weight=entry.weight,
    )
