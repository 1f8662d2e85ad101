"""Which part of a data set a file is, by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
"""All parts of a data set."""
WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev"),
    "test": ("test",),
}
"""Words in names that tell them."""

# newstest2014, newsdev2016, wmttest2022, generaltest2023.
_WMT = re.compile(r"(?:news|newsdiscuss|wmt|general)(?P<word>dev|test)")
_SEPARATORS = re.compile(r"[-._\d]+")


def split_of(path: PurePosixPath) -> Split:
    """The split that a file's name or, if it tells none, the nearest folder of it tells; else "train"."""
    for part in reversed(path.parts):
        if (split := _split_in(_SEPARATORS.split(part.lower()))) is not None:
            return split
    return "train"


def _split_in(words: Sequence[str]) -> Split | None:
    plain = {match["word"] if (match := _WMT.fullmatch(word)) else word for word in words}
    told: list[Split] = [split for split in SPLITS if not plain.isdisjoint(WORDS[split])]
    return told[0] if told else None
