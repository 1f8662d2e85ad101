"""What SLURM's own environments are taken for: in a batch script, a step, and mpirun within either."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from local_slurm import REPOSITORY, LocalSlurm

_TELL = """
import os
from deltalm_ds.launching import launcher_of, srun_task
task = srun_task(os.environ)
numbers = task and (task.rank, task.count, task.rank_on_node)
print("told", os.environ["PLACE"], launcher_of(os.environ), numbers)
"""
_SCRIPT = """#!/bin/bash
export PYTHONPATH={repository}
tell() {{ PLACE=$1 exec {python} {program}; }}
export -f tell
bash -c 'tell batch'
srun bash -c 'tell step'
srun --mpi=pmi2 bash -c 'tell pmi2'
mpirun --map-by ppr:1:node bash -c 'tell mpirun'
srun --overlap --nodes 1 --ntasks 1 mpirun --oversubscribe -n 2 bash -c 'tell within'
"""


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_every_place_of_a_job(cluster: LocalSlurm, tmp_path: Path) -> None:
    program, script = tmp_path / "tell.py", tmp_path / "script.sh"
    program.write_text(_TELL)
    script.write_text(_SCRIPT.format(repository=REPOSITORY, python=sys.executable, program=program))
    job = cluster.sbatch(script, "--nodes", 2, "--ntasks-per-node", 2, "--output", tmp_path / "log")
    job.wait_for("COMPLETED")
    told = sorted(line.removeprefix("told ") for line in job.log().splitlines() if line.startswith("told "))
    tasks = ["(0, 4, 0)", "(1, 4, 1)", "(2, 4, 0)", "(3, 4, 1)"]
    assert [line for line in told if line.startswith("batch")] == ["batch none None"]
    assert [line for line in told if line.startswith("step")] == [f"step srun {task}" for task in tasks]
    assert [line for line in told if line.startswith("pmi2")] == [f"pmi2 srun {task}" for task in tasks]
    assert [line.split()[1] for line in told if line.startswith(("mpirun", "within"))] == ["mpi"] * 4
