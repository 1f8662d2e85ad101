"""Two processes train alike, whatever starts them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from launchers import losses
from local_slurm import LocalSlurm


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_the_same_losses_under_every_launcher(
    cluster: LocalSlurm, tmp_path: Path, small_corpus: Path
) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("localhost slots=2\n")
    found = {
        launcher: losses(tmp_path / f"by-{launcher}", small_corpus, launcher, hostfile, cluster.environment)
        for launcher in ("deepspeed", "hostfile", "torchrun", "mpirun", "srun")
    }
    assert len(found["srun"]) == 2
    assert len(set(map(tuple, found.values()))) == 1, found
