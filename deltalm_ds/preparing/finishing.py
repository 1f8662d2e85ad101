"""The second half of preparing: encoded pieces to a finished folder, without duplicates, shuffled, hashed."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import safe_open

from deltalm_ds.data.hashes import write_hashes
from deltalm_ds.data.indexed import bin_path, idx_path
from deltalm_ds.data.manifest import MANIFEST_NAME, Manifest, SourceEntry, TokenizerEntry
from deltalm_ds.errors import UserError
from deltalm_ds.files import (
    CHUNK_BYTES,
    chunk_hash,
    num_chunks,
    sha256_of,
    tree_hash,
    write_bytes_atomically,
    write_text_atomically,
)
from deltalm_ds.preparing import duplicates, layout
from deltalm_ds.preparing.encoding import Encoding
from deltalm_ds.preparing.layout import COUNTS, PIECES_AT_ONCE
from deltalm_ds.preparing.settings import PrepareSettings
from deltalm_ds.preparing.sources import Collected, DocumentSet
from deltalm_ds.preparing.stages import Stage, digest
from deltalm_ds.preparing.tasks import Task, run_tasks
from deltalm_ds.preparing.writing import (
    SetLayout,
    SplitPlan,
    ValidationSplit,
    plan_splits,
    tokens_of_first,
    write_range,
)
from deltalm_ds.processes import Workers
from deltalm_ds.ranks import Ranks

TOKENIZER_NAME = "tokenizer.model"


@dataclass(frozen=True, kw_only=True)
class BuiltSource:
    """A source as written."""

    name: str
    """The language, or the pair's two."""
    entries: tuple[SourceEntry, ...]
    """One for each split that has documents."""
    statistics: dict[str, int]
    """`layout.COUNTS` of both splits together."""
    num_duplicates: tuple[int, int]
    """Documents left out because they are equal to another one, and because they are only alike."""


class Finisher:
    """Makes the finished folder, `folder`, on all ranks."""

    def __init__(
        self,
        settings: PrepareSettings,
        weights: dict[str, float],
        encoded: Stage,
        collected: Collected,
        encoding: Encoding,
        work: Path,
        ranks: Ranks,
        workers: Workers,
    ) -> None:
        self._settings, self._weights, self._encoding = settings, weights, encoding
        self._sets, self._ranks, self._workers = collected.sets, ranks, workers
        parts = [str(encoded.folder_of(part)) for part in encoded.parts]
        depends_on = [parts, settings.validation_share, settings.max_validation_documents]
        self._work = work / f"finishing-{digest(depends_on)}"
        self._dtype = encoding.vocabulary.token_dtype
        self.folder = self._work / "finished"
        """The finished folder, to be renamed."""
        # In the folder whose files they speak of: where it is moved, they must not stay behind.
        self._marks = self.folder / ".marks"

    def run(self, recipe: str) -> tuple[Manifest, list[BuiltSource]]:
        """All stages; the manifest is written last."""
        if not self._sets:
            raise UserError("nothing is left of the text: loosen the cleaning options")
        found = self._find_duplicates()
        layouts = self._make_layouts(found)
        splits = self._plan_splits(layouts)
        if (hashes := self._ranks.from_first(self._finished_hashes)) is None:
            self._write(layouts, splits)
            hashes = self._hash([split for plans in splits for split in plans])
        sources = self._describe(layouts, splits, hashes)
        manifest = Manifest(
            tokenizer=TokenizerEntry.of(
                TOKENIZER_NAME, sha256_of(self._encoding.tokenizer), self._encoding.vocabulary
            ),
            dtype=self._dtype.name,
            seed=self._settings.seed,
            recipe=recipe,
            sources=tuple(entry for source in sources for entry in source.entries),
        )
        self._ranks.barrier()  # all have read the marks, which go now
        self._ranks.from_first(lambda: self._seal(manifest))
        return manifest, sources

    def _run(self, what: str, tasks: Sequence[Task]) -> None:
        run_tasks(what, tasks, self._ranks, self._workers)

    def _sets_of_source(self) -> dict[str, list[DocumentSet]]:
        sources = defaultdict(list)
        for documents in self._sets:
            sources[documents.name].append(documents)
        return sources

    def _find_duplicates(self) -> dict[str, list[Path]]:
        """The files of duplicates of every source."""
        cleaning = self._settings.cleaning
        if cleaning.duplicates == "keep":
            return defaultdict(list)
        tasks, found = [], defaultdict(list)
        for name, sets in self._sets_of_source().items():
            pieces = [piece for documents in sets for piece in documents.pieces]
            count = duplicates.num_ranges(pieces, cleaning.duplicates == "near")
            cost = sum(piece.num_documents for piece in pieces) // count
            for number in range(count):
                path = self._work / "duplicates" / f"{name}-{number}.safetensors"
                action = partial(duplicates.find_duplicates, pieces, number, count, path)
                tasks.append(Task(path, action, cost))
                found[name].append(path)
        self._run("duplicates", tasks)
        return found

    def _make_layouts(self, found: dict[str, list[Path]]) -> list[SetLayout]:
        tasks, layouts = [], []
        for name, sets in self._sets_of_source().items():
            first_in_source = 0
            for documents in sets:
                count = layout.num_ranges(documents, self._dtype.itemsize)
                tables = []
                for first in range(0, len(documents.pieces), PIECES_AT_ONCE):
                    path = self._work / "tables" / f"{documents.key}-{first}.safetensors"
                    action = partial(
                        layout.make_tables, documents, first, count, found[name], first_in_source, path
                    )
                    cost = sum(p.num_tokens for p in documents.pieces[first : first + PIECES_AT_ONCE])
                    tasks.append(Task(path, action, cost))
                    tables.append(path)
                layouts.append(SetLayout(documents, tuple(tables), self._dtype))
                first_in_source += len(documents.pieces)
        self._run("layout", tasks)
        return layouts

    def _plan_splits(self, layouts: list[SetLayout]) -> list[list[SplitPlan]]:
        """The datasets of every set."""
        validation = ValidationSplit(
            share=self._settings.validation_share, max_documents=self._settings.max_validation_documents
        )
        held_out_by_name = {documents.name for documents in self._sets if documents.held_out}
        counts, tasks = [], []
        for made in layouts:
            num_documents = int(made.totals()[:, 0].sum())
            if made.documents.held_out:
                count = num_documents
            else:
                count = 0 if made.documents.name in held_out_by_name else validation.count(num_documents)
            path = self._work / "splits" / f"{made.documents.key}.json"
            tasks.append(Task(path, partial(_count_tokens, made, count, path), 1))
            counts.append(count)
        self._run("validation split", tasks)
        return [
            plan_splits(made, self.folder, count, json.loads(task.done.read_text()))
            for made, count, task in zip(layouts, counts, tasks, strict=True)
        ]

    def _write(self, layouts: list[SetLayout], splits: list[list[SplitPlan]]) -> None:
        def create() -> None:
            for plans in splits:
                for split in plans:
                    split.files.create()

        self._ranks.from_first(create)
        tasks = []
        for made, plans in zip(layouts, splits, strict=True):
            totals = made.totals()
            for number in range(len(totals)):
                done = self._marks / "written" / f"{made.documents.key}-{number}"
                cost = int(totals[number, COUNTS.index("tokens")]) * self._dtype.itemsize
                tasks.append(Task(done, partial(write_range, made, number, plans), cost))
        self._run("writing", tasks)

    def _hash(self, splits: list[SplitPlan]) -> dict[Path, str]:
        """The hashes of all files; those of their chunks are written beside them."""
        chunks: list[tuple[Path, int]] = []
        for split in splits:
            files = split.files
            for path, size in (
                (bin_path(files.prefix), files.bin_bytes),
                (idx_path(files.prefix), files.idx_bytes),
            ):
                chunks += [(path, number) for number in range(num_chunks(size))]
        tasks = [
            Task(
                path := self._marks / "hashes" / f"{file.parent.name}-{file.name}-{number}.json",
                partial(_hash_chunk, file, number, path),
                min(CHUNK_BYTES, file.stat().st_size - number * CHUNK_BYTES),
            )
            for file, number in chunks
        ]
        self._run("hashing", tasks)
        hashes: dict[Path, list[str]] = defaultdict(list)
        for (file, _), task in zip(chunks, tasks, strict=True):
            hashes[file].append(json.loads(task.done.read_text()))
        if self._ranks.is_first:
            for file, of_chunks in hashes.items():
                write_hashes(file, of_chunks)
        return {file: tree_hash(of_chunks) for file, of_chunks in hashes.items()}

    def _finished_hashes(self) -> dict[Path, str] | None:
        """The hashes of all files if an earlier call was ended when all was written."""
        if not (self.folder / MANIFEST_NAME).is_file():
            return None
        hashes = {}
        for entry in Manifest.read(self.folder).sources:
            hashes[bin_path(self.folder / entry.prefix)] = entry.bin_sha256
            hashes[idx_path(self.folder / entry.prefix)] = entry.idx_sha256
        return hashes

    def _describe(
        self, layouts: list[SetLayout], splits: list[list[SplitPlan]], hashes: dict[Path, str]
    ) -> list[BuiltSource]:
        entries: dict[str, list[SourceEntry]] = defaultdict(list)
        totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(COUNTS), dtype=np.int64))
        dropped: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2, dtype=np.int64))
        for made, plans in zip(layouts, splits, strict=True):
            name = made.documents.name
            totals[name] += made.totals().sum(axis=0)
            for path in made.tables:
                with safe_open(path, framework="np") as file:
                    dropped[name] += file.get_tensor("num_duplicates")
            for split in plans:
                entries[name].append(self._entry(made.documents, split, hashes))
        return [
            BuiltSource(
                name=name,
                entries=tuple(sorted(entries[name], key=lambda entry: entry.split, reverse=True)),
                statistics=dict(zip(COUNTS, totals[name].tolist(), strict=True)),
                num_duplicates=(int(dropped[name][0]), int(dropped[name][1])),
            )
            for name in sorted(entries)
        ]

    def _entry(self, documents: DocumentSet, split: SplitPlan, hashes: dict[Path, str]) -> SourceEntry:
        files = split.files
        return SourceEntry(
            name=documents.name,
            kind="pairs" if documents.num_sequences == 2 else "monolingual",
            languages=documents.languages,
            split=split.split,
            prefix=files.prefix.relative_to(self.folder).as_posix(),
            documents=files.num_documents,
            sequences=files.num_sequences,
            tokens=files.num_tokens,
            bin_bytes=files.bin_bytes,
            idx_bytes=files.idx_bytes,
            bin_sha256=hashes[bin_path(files.prefix)],
            idx_sha256=hashes[idx_path(files.prefix)],
            weight=self._weights.get(documents.name, 1.0),
        )

    def _seal(self, manifest: Manifest) -> None:
        for left_by_a_killed_run in self.folder.rglob("*.tmp"):
            left_by_a_killed_run.unlink()
        write_bytes_atomically(self.folder / TOKENIZER_NAME, self._encoding.tokenizer.read_bytes())
        manifest.write(self.folder)
        shutil.rmtree(self._marks, ignore_errors=True)


def _count_tokens(made: SetLayout, num_documents: int, path: Path) -> None:
    write_text_atomically(path, json.dumps(tokens_of_first(made, num_documents)))


def _hash_chunk(file: Path, number: int, path: Path) -> None:
    write_text_atomically(path, json.dumps(chunk_hash(file, number)))
