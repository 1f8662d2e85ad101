"""A program in nvidia-smi's place that answers in its documented CSV form. It never ran on a GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ANSWERS = {
    "gpu=name": "NVIDIA H100 80GB HBM3, 550.54.15, 523, 0",
    "gpu=temperature": "61, 1485, 1980, 0x0000000000000004",
    "remapped-rows": "No, No",
    "compute-apps": "",
}
"""Which question, by how it begins, and the answer of a healthy GPU."""


def write_nvidia_smi(folder: Path, body: str = "", **changes: str) -> None:
    """Write the program into `folder`, which then belongs at the head of PATH; `changes` by question."""
    answers = {**ANSWERS, **changes}
    cases = "\n".join(
        f'    *--query-{question}*) printf "%s\\n" "{text}" ;;' for question, text in answers.items()
    )
    script = f'#!/bin/sh\n{body}\ncase "$*" in\n{cases}\n    *) echo "unknown: $*"; exit 6 ;;\nesac\n'
    folder.mkdir(exist_ok=True)
    (folder / "nvidia-smi").write_text(script)
    (folder / "nvidia-smi").chmod(0o755)


def put_first(folder: Path) -> str:
    """PATH with the folder at its head."""
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
