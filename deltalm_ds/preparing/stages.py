"""Work on all pieces of a corpus, shared by ranks and their workers, which can be killed at any time.

Every piece leaves its results in files and then a small JSON file, NUMBER.json; when all pieces of a part
have one, the part's `done.json` lists them. What has such a file is not done again. A part's folder is named
by a hash of everything that its results depend on: an input that was replaced gets another folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from deltalm_ds.files import write_text_atomically
from deltalm_ds.processes import Workers
from deltalm_ds.progress import Progress
from deltalm_ds.ranks import Ranks
from deltalm_ds.text.pieces import PIECE_BYTES, Part, Piece, read_pieces

DONE = "done.json"

PieceFunction = Callable[[Piece, Path], Any]
"""Works on a piece, writes what it likes into a folder, and returns something small for JSON."""


def digest(content: object) -> str:
    """A short hash of JSON content."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Stage:
    """One kind of work on all pieces."""

    what: str
    """A word for the progress bar."""
    folder: Path
    """Where its results are; named by what they depend on beside the pieces."""
    parts: Sequence[Part]
    """All the pieces, in order."""

    def folder_of(self, part: Part) -> Path:
        """Where a part's results are."""
        return self.folder / digest([PIECE_BYTES, asdict(part)])

    def results(self, part: Part) -> list[Any]:
        """What the function has returned for the pieces of a part, in order, once it is done."""
        return json.loads((self.folder_of(part) / DONE).read_text(encoding="utf-8"))

    def run(self, function: PieceFunction, ranks: Ranks, workers: Workers) -> None:
        """Do all of it that is not done yet; returns when all ranks are through."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = ranks.from_first(
            lambda: [number for number, part in enumerate(self.parts) if not self._is_done(part)]
        )
        total = sum(part.stored_bytes for part in self.parts)
        left = sum(self.parts[number].stored_bytes for number in missing)
        mine = ranks.share([self.parts[number] for number in missing], lambda part: part.stored_bytes)
        with Progress(self.what, total, ranks, total - left) as progress:
            counted = 0
            for done in workers.map(partial(_work, function), self._tasks(mine)):
                if done.piece is not None:
                    progress.update(done.stored_bytes)
                    counted += done.stored_bytes
                else:
                    self._finish(done.part)
                    progress.update(max(done.part.stored_bytes - counted, 0))
                    counted = 0

    def _is_done(self, part: Part) -> bool:
        return (self.folder_of(part) / DONE).is_file()

    def _tasks(self, parts: Sequence[Part]) -> Iterator[_Task]:
        for part in parts:
            folder = self.folder_of(part)
            folder.mkdir(exist_ok=True)
            for piece in read_pieces(part):
                if not _marker(folder, piece.number).is_file():
                    yield _Task(part, piece, folder)
            yield _Task(part, None, folder)

    def _finish(self, part: Part) -> None:
        folder = self.folder_of(part)
        numbers = sorted(int(path.stem) for path in folder.glob("*.json"))
        results = [json.loads(_marker(folder, number).read_text(encoding="utf-8")) for number in numbers]
        write_text_atomically(folder / DONE, json.dumps(results))


class _Task(NamedTuple):
    part: Part
    piece: Piece | None
    """None after the last piece of the part."""
    folder: Path


class _Done(NamedTuple):
    part: Part
    piece: int | None
    stored_bytes: int


def _work(function: PieceFunction, task: _Task) -> _Done:
    if task.piece is None:
        return _Done(task.part, None, 0)
    result = function(task.piece, task.folder)
    write_text_atomically(_marker(task.folder, task.piece.number), json.dumps(result))
    return _Done(task.part, task.piece.number, task.piece.stored_bytes)


def _marker(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"
