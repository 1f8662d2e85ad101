"""An output file that is made of parts, so that a run that was killed goes on where it was.

FILE.partial/ holds the parts that are done, each under the hash of its input, and what the run depends on.
Many processes fill it together. When all parts are there, they are put together and renamed to FILE.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deltalm_ds.decoding.lines import Chunk
from deltalm_ds.decoding.remarks import Counts
from deltalm_ds.errors import UserError
from deltalm_ds.files import atomic_writer, fsync_directory, write_bytes_atomically, write_text_atomically

_RUN_FILE = "run.json"
_WHOLE_FILE = "whole"


class PartialOutput:
    """The parts of the file at `output`."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.partial")
        """Where they are."""

    def start(self, run: Mapping[str, Any], resume: bool) -> frozenset[str]:
        """Make the folder, or go on with it; by one process only. The names of what is in it.

        `run` is what the output depends on beside its input, plain JSON. UserError where the output exists,
        where there are parts and no `resume`, and, naming what differs, where they are of another run.
        """
        is_begun = (self.folder / _RUN_FILE).is_file()
        if self.output.exists() and not (resume and is_begun):
            raise UserError(f"{self.output} exists: name another --output, or remove it")
        if is_begun and not resume:
            raise UserError(
                f"{self.folder} has the parts of an interrupted run: give --resume to go on, or remove it"
            )
        if is_begun:
            self._check_same(run)
            return frozenset(path.name for path in self.folder.iterdir())
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(not path.name.startswith(_RUN_FILE) for path in self.folder.iterdir()):
            raise UserError(
                f"{self.folder} is in the way, and of no run: remove it, or name another --output"
            )
        write_text_atomically(self.folder / _RUN_FILE, json.dumps(run, indent=2) + "\n")
        fsync_directory(self.folder.parent)
        return frozenset()

    def read_counts(self, chunk: Chunk) -> Counts:
        """What was counted of a part that is done."""
        with self.path_of(chunk).open("rb") as file:
            return Counts(**json.loads(file.readline()))

    def write(self, chunk: Chunk, text: str, counts: Counts) -> None:
        """A part is done: either all of it is there afterwards, or nothing."""
        first_line = json.dumps(counts.to_json()).encode() + b"\n"
        write_bytes_atomically(self.path_of(chunk), first_line + text.encode())

    def finish(self, head: str, chunks: Sequence[Path]) -> None:
        """Put the parts together, in the order of `chunks`, and remove the folder; by one process only."""
        whole = self.folder / _WHOLE_FILE
        with atomic_writer(whole) as file:
            file.write(head.encode())
            for path in chunks:
                with path.open("rb") as part:
                    part.readline()
                    shutil.copyfileobj(part, file)
        if not self.output.exists():
            whole.rename(self.output)
            fsync_directory(self.output.parent)
        elif not filecmp.cmp(whole, self.output, shallow=False):  # equal where a kill came after the renaming
            raise UserError(f"{self.output} was written by something else meanwhile: the output is {whole}")
        # Renamed first: half a folder of parts would be taken for those of another run.
        finished = self.folder.with_name(f"{self.folder.name}.finished")
        shutil.rmtree(finished, ignore_errors=True)
        self.folder.rename(finished)
        shutil.rmtree(finished)

    def path_of(self, chunk: Chunk) -> Path:
        """Where the part of a chunk is, or will be."""
        return self.folder / f"{chunk.number:08d}-{chunk.digest[:16]}"

    def _check_same(self, run: Mapping[str, Any]) -> None:
        path = self.folder / _RUN_FILE
        begun = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in sorted(begun.keys() | run.keys()) if begun.get(name) != run.get(name)]
        if differing:
            found = ", ".join(f"{name} ({begun.get(name)}, now {run.get(name)})" for name in differing)
            raise UserError(
                f"{self.folder} is of a run with another {found}: go on with the same options, or remove it"
            )
