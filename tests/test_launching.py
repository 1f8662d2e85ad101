"""Who launched a process, by the environments that launchers leave; tests/cluster has them all for real."""

from __future__ import annotations

import pytest

from deltalm_ds.launching import SrunTask, has_mpi, launcher_of, srun_task

BATCH_SCRIPT = {
    "SLURM_JOB_ID": "7",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NTASKS": "4",
}
TASK = {
    **BATCH_SCRIPT,
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_RESTART_COUNT": "3",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NODELIST": "n[1-3]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2,1(x2)",
}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, "none"),
        ({"RANK": "0"}, "torch"),
        (MPIRUN, "mpi"),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, "mpi"),
        (BATCH_SCRIPT, "none"),
        (TASK, "srun"),
        ({**TASK, "PMIX_RANK": "2"}, "srun"),  # srun --mpi=pmix
        ({**TASK, "PMI_SIZE": "4", "PMI_RANK": "2"}, "srun"),  # srun --mpi=pmi2
        ({**TASK, **MPIRUN}, "mpi"),  # mpirun's ranks on other nodes are children of a step of its own
        ({**TASK, "PMI_SIZE": "16", "PMI_RANK": "9"}, "mpi"),
        ({**TASK, "RANK": "5"}, "torch"),  # srun torchrun
    ],
)
def test_the_launcher(environment: dict[str, str], launcher: str) -> None:
    assert launcher_of(environment) == launcher


def test_a_task_of_srun() -> None:
    assert srun_task(BATCH_SCRIPT) is None
    assert srun_task(TASK) == SrunTask(
        rank=2, count=4, rank_on_node=0, count_on_node=1, nodes="n[1-3]", job=7, restarts=3, step=1
    )
    first = {**TASK, "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
    task = srun_task(first)
    assert task is not None
    assert (task.rank_on_node, task.count_on_node) == (1, 2)


def test_whether_mpi_finds_others() -> None:
    assert not has_mpi(TASK)
    assert has_mpi({**TASK, "PMIX_RANK": "2"})
    assert has_mpi(MPIRUN)
