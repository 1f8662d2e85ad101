"""Site files of the test cluster's users."""

from __future__ import annotations

import sys
from pathlib import Path

from local_slurm import REPOSITORY


def write_site(folder: Path, *lines: str) -> Path:
    """slurm/site.sh, then what this machine has, then the given lines; runs go into `folder`/runs."""
    path = folder / "site.sh"
    basis = (f". {REPOSITORY}/slurm/site.sh", f"PYTHON={sys.executable}", f"RUNS={folder}/runs")
    path.write_text("\n".join((*basis, "NETWORK_INTERFACE=lo", *lines)) + "\n")
    return path


def write_scripted_site(folder: Path, *lines: str) -> Path:
    """With scripted_trainer.py in the place of Python."""
    python = folder / "python"
    program = Path(__file__).parent / "scripted_trainer.py"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -u {program} "$@"\n')
    python.chmod(0o755)
    return write_site(folder, f"PYTHON={python}", f"DATA={folder}", "START_FROM=nothing", *lines)
