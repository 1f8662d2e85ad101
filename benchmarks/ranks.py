"""Fresh processes of a benchmark's worker, started by torchrun on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_SECONDS = 3600


def run_ranks(
    worker: str, work: Mapping[str, Any], output: Path, num_ranks: int, environment: Mapping[str, str]
) -> None:
    """Run `benchmarks/WORKER WORK OUTPUT` in so many processes of one thread; WORK is JSON.

    RuntimeError, with the end of what they said, where one fails.
    """
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launch, f"--nproc-per-node={num_ranks}", ROOT / "benchmarks" / worker, json.dumps(work), output],
        env={
            **os.environ,
            **{"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{worker} {work}: {done.stderr[-3000:]}")
