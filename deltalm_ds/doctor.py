"""Are the machines fit for the job? `srun python -m deltalm_ds.doctor --output DIR`, before it."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__" and __package__ is None:
    # Run as a file, Python heads the import path with this folder, where modules may be named like others'.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from deltalm_ds.commands import parse, run
from deltalm_ds.diagnosing.settings import DoctorSettings


def main() -> int:
    """The command."""
    settings = parse(DoctorSettings, "doctor")
    # Programs read stdout, where DeepSpeed and NCCL write too: theirs goes to stderr.
    for_programs = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from deltalm_ds.diagnosing.run import examine  # torch takes seconds to import: not for --help

    return examine(
        settings,
        partial(print, file=sys.stderr, flush=True),
        partial(print, file=for_programs, flush=True),
    )


if __name__ == "__main__":
    run("doctor", main)
