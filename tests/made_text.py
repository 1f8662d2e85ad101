"""Made-up text files, prepared, and read back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from deltalm_ds.data.indexed import IndexedDataset
from deltalm_ds.prepare import PrepareSettings, prepare
from deltalm_ds.text.tokenizer import Tokenizer, train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

NUM_DOCUMENTS, NUM_PAIRS = 200, 300


def words(generator: random.Random, count: int) -> str:
    return " ".join("".join(generator.choices("aeioubdlmnrst", k=4)) for _ in range(count))


def write_text(folder: Path) -> Path:
    """Documents in two files, pairs, held-out text in `folder`, and a tokenizer for them beside it."""
    folder.mkdir(parents=True)
    generator = random.Random(0)
    documents = [
        "\n".join(f"d{number} {words(generator, 5)}" for _ in range(1 + number % 3))
        for number in range(NUM_DOCUMENTS)
    ]
    (folder / "fr.0.txt").write_text("\n\n".join(documents[:150]))
    (folder / "fr.1.txt").write_text("\n\n".join(documents[150:]))
    (folder / "train.en").write_text("".join(f"s{n} {words(generator, 3)}\n" for n in range(NUM_PAIRS)))
    (folder / "train.fr").write_text("".join(f"t{n} {words(generator, 4)}\n" for n in range(NUM_PAIRS)))
    (folder / "de.txt").write_text("\n\n".join(words(generator, 6) for _ in range(5)))
    (folder / "de.dev.txt").write_text("held out\n\nheld out too")
    lines = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
    model_beside(folder).write_bytes(train_tokenizer(lines, 150, 1.0))
    return folder


def model_beside(folder: Path) -> Path:
    return folder.parent / "made.model"


def make(
    folder: Path, output: Path, names: Sequence[str] = ("*",), model: Path | None = None, **changed: Any
) -> list[str]:
    """Prepare the files of `folder` into `output` in this process; what was said."""
    said: list[str] = []
    options = {"workers": 1, "tokenizer": model or model_beside(folder), **changed}
    settings = PrepareSettings(inputs=tuple(folder / name for name in names), output=output, **options)
    prepare(settings, said.append)
    return said


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file by its path within the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(prefix: Path, tokenizer: Tokenizer) -> list[list[str]]:
    """The lines of every document, decoded; a pair's sides are its lines."""
    dataset = IndexedDataset(prefix)
    documents = []
    for first, last in pairwise(dataset.document_indices.tolist()):
        tokens = np.concatenate([dataset.sequence(index) for index in range(first, last)])
        assert tokens[0] == Vocabulary.BOS
        assert tokens[-1] == Vocabulary.EOS
        ends = np.flatnonzero(tokens == Vocabulary.EOS)
        starts = [1, *(ends[:-1] + 1)]
        documents.append([tokenizer.decode(tokens[a:b]) for a, b in zip(starts, ends, strict=True)])
    return documents
