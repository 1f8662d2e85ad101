"""Which stored pieces make up which source, and what was counted on the way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from deltalm_ds.errors import UserError
from deltalm_ds.preparing.encoding import PieceSummary, stored_documents
from deltalm_ds.preparing.stages import Stage
from deltalm_ds.text.inputs import Input


class StoredPiece(NamedTuple):
    """The documents that one piece has of one source."""

    path: Path
    """Their file."""
    num_documents: int
    num_tokens: int


@dataclass(frozen=True)
class DocumentSet:
    """The documents of a source that are shuffled together: all of its inputs, or those held out by name."""

    name: str
    """The source: the language, or the pair's two."""
    languages: tuple[str, ...]
    """The language, or the two of pairs."""
    held_out: bool
    """Whether its inputs are held out for validation by their names."""
    pieces: tuple[StoredPiece, ...]
    """In input order."""

    @property
    def num_sequences(self) -> int:
        """Sequences of a document: 2 of a pair."""
        return len(self.languages)

    @property
    def key(self) -> str:
        """A name for files."""
        return f"{self.name}-held-out" if self.held_out else self.name


@dataclass
class Counts:
    """What was read and left out of a source."""

    read: int = 0
    """Documents or pairs read, blank ones not counted."""
    left_out: Counter[str] = field(default_factory=Counter)
    """How many were left out, by reason."""


@dataclass(frozen=True)
class Collected:
    """What the encoding of all pieces has left."""

    sets: list[DocumentSet]
    """By source, those held out first; duplicates go by this order."""
    counts: dict[str, Counts]
    """By source; damaged lines of unknown language under "*"."""
    digests: list[str]
    """The hash of every piece, in order."""
    num_bytes: int
    """Bytes of all text read."""


def collect(inputs: Sequence[Input], stage: Stage) -> Collected:
    """The document sets of an encoded corpus. UserError for an input without any text."""
    pieces: dict[tuple[str, bool], list[StoredPiece]] = defaultdict(list)
    languages: dict[str, tuple[str, ...]] = {}
    counts: dict[str, Counts] = defaultdict(Counts)
    found: Counter[Input] = Counter()
    digests, num_bytes = [], 0
    for part in stage.parts:
        folder = stage.folder_of(part)
        results: Sequence[PieceSummary] = stage.results(part)
        for result in results:
            digests.append(result["sha256"])
            num_bytes += result["num_bytes"]
            for name, count in result["read"].items():
                counts[name].read += count
                found[part.input] += count
            for name, left_out in result["left_out"].items():
                counts[name].left_out.update(left_out)
            for name, (num_documents, num_tokens) in result["stored"].items():
                languages[name] = part.input.languages or (name,)
                if num_documents:
                    path = stored_documents(folder, result["number"], name)
                    pieces[name, part.input.held_out].append(StoredPiece(path, num_documents, num_tokens))
    for entry in inputs:
        if not found[entry]:
            names = " and ".join(map(str, entry.files))
            raise UserError(f"{names}: there is no text in it; leave it out or fill it")
    sets = [
        DocumentSet(name, languages[name], held_out, tuple(pieces[name, held_out]))
        for name, held_out in sorted(pieces, key=lambda key: (key[0], not key[1]))
    ]
    return Collected(sets, dict(counts), digests, num_bytes)
