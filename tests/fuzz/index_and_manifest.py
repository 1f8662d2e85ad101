"""A longer fuzzing of the readers of .idx and manifest.json by Atheris, run by hand.

    pip install atheris
    python tests/fuzz/index_and_manifest.py -max_total_time=600

The first byte chooses the reader. Anything but a result or a UserError of one line ends it with the input
that did it. docs/data.md holds what the last long run found.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "data")]

with atheris.instrument_imports(include=["deltalm_ds"]):
    from deltalm_ds.data.indexed import IndexedDataset
    from deltalm_ds.data.manifest import Manifest
    from deltalm_ds.errors import UserError

FOLDER = Path(tempfile.mkdtemp())


def read_index(content: bytes) -> None:
    """A third of the bytes are the .bin."""
    cut = len(content) // 3
    (FOLDER / "x.bin").write_bytes(content[:cut])
    (FOLDER / "x.idx").write_bytes(content[cut:])
    dataset = IndexedDataset(FOLDER / "x")
    for index in range(dataset.num_sequences):
        dataset.sequence(index)
    for number in range(dataset.num_documents):
        dataset.document(number)
    for offset in np.linspace(0, dataset.num_tokens, 5, dtype=int).tolist():
        dataset.first_sequence_from(offset)
    dataset.check()


def read_manifest(content: bytes) -> None:
    (FOLDER / "manifest.json").write_bytes(content)
    Manifest.read(FOLDER)


def run(content: bytes) -> None:
    if not content:
        return
    reader = read_index if content[0] % 2 else read_manifest
    try:
        reader(content[1:])
    except UserError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than a line: {error}") from error


if __name__ == "__main__":
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
