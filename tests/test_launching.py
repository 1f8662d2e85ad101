"""Who launched a process, by the environments that launchers leave; tests/cluster has them all for real."""

from __future__ import annotations

import pytest

from deltalm_ds.launching import (
    SrunTask,
    expand_hosts,
    expand_tasks,
    has_mpi,
    launcher_of,
    port_in_job,
    srun_task,
)

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
        *(2, 4, 0),
        tasks_by_node={"n1": 2, "n2": 1, "n3": 1},
        node="n2",
        job=7,
        restarts=3,
        step=1,
    )
    first = {**TASK, "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
    task = srun_task(first)
    assert task is not None
    assert (task.rank_on_node, task.node) == (1, "n1")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n1,m7", ["n1", "m7"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-10,12],gpu-a", ["n08", "n09", "n10", "n12", "gpu-a"]),
        ("r[1-2]n[3-4]", ["r1n3", "r1n4", "r2n3", "r2n4"]),
        ("a[1,3]-ib,b", ["a1-ib", "a3-ib", "b"]),
    ],
)
def test_slurms_short_form_of_hosts(text: str, hosts: list[str]) -> None:
    assert expand_hosts(text) == hosts


def test_slurms_short_form_of_tasks() -> None:
    assert expand_tasks("8(x2),4") == [8, 8, 4]
    assert expand_tasks("2") == [2]


def test_jobs_restarts_and_steps_meet_at_other_ports() -> None:
    cases = [(job, restarts, step) for job in (7, 8) for restarts in (0, 1) for step in (0, 1)]
    assert len({port_in_job(*case) for case in cases}) == len(cases)
    assert all(10_000 <= port_in_job(job, 0, 0) < 30_000 for job in (1, 12_345_678))


def test_whether_mpi_finds_others() -> None:
    assert not has_mpi(TASK)
    assert has_mpi({**TASK, "PMIX_RANK": "2"})
    assert has_mpi(MPIRUN)
