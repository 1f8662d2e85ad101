"""Text of no task, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from deltalm_ds.downstream.lines import read_lines
from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import expand_archives

_RECORDS = (".json", ".jsonl")


def read_text(paths: Sequence[Path]) -> Iterator[str]:
    """The lines of all files, .gz, .xz, .zst and the members of .zip among them, that are not blank.

    UserError for a file that cannot be read, is damaged, not UTF-8, or JSON, whose text is written in another
    way than a model reads it.
    """
    for path in paths:
        for stored in expand_archives(path):
            if stored.plain_name.endswith(_RECORDS):
                raise UserError(f"{stored} is JSON: give its text alone, one line for each")
            yield from (line for line in read_lines(stored) if not line.isspace() and line)
