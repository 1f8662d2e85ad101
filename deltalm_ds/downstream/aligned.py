"""Line-aligned files: train.en and train.fr, or one file for each field of a template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from deltalm_ds.downstream.lines import read_lines
from deltalm_ds.downstream.rows import Place, Row
from deltalm_ds.downstream.templates import one_line
from deltalm_ds.errors import UserError
from deltalm_ds.text.inputs import suffix_of
from deltalm_ds.text.stored import StoredText


def read_aligned(texts: Sequence[StoredText], endings: Mapping[str, str]) -> Iterator[Row]:
    """The rows of files that have a field each, named by the file's ending and, by `endings`, once more.

    UserError where one of them has fewer lines than another.
    """
    names = [suffix_of(text)[1:] for text in texts]
    others = [endings.get(name, name) for name in names]
    for number, lines in enumerate(zip_longest(*map(read_lines, texts)), 1):
        if None in lines:
            raise _unequal(texts, lines, number)
        values = [one_line(line) for line in lines]
        fields = dict(zip(names, values, strict=True))
        fields.update(zip(others, values, strict=True))
        yield Row(fields, Place(texts[0], number))


def _unequal(texts: Sequence[StoredText], lines: Sequence[str | None], number: int) -> UserError:
    ended = texts[lines.index(None)]
    going_on = next(text for text, line in zip(texts, lines, strict=True) if line is not None)
    return UserError(
        f"{ended} ends after line {number - 1:,} and {going_on} goes on: line-aligned files need "
        "equally many lines; find the missing one"
    )
