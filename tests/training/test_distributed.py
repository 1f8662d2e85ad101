"""Joining under srun; other launchers are in test_launchers.py, and real steps in tests/cluster."""

from __future__ import annotations

import os
from unittest import mock

from distributed import run_distributed

from deltalm_ds.launching import SrunTask, port_in_job


def variables(environment: dict[str, str]) -> dict[str, str]:
    from deltalm_ds.training import distributed

    task = SrunTask(3, 4, 1, tasks_by_node={"n1": 1, "n2": 3}, node="n2", job=7, restarts=0, step=0)
    return distributed._variables_of(task, environment)


def test_what_torch_is_told() -> None:
    assert variables({"MASTER_PORT": "1234"}) == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "n1",
        "MASTER_PORT": "1234",
    }
    assert variables({"MASTER_ADDR": "10.0.0.1"})["MASTER_ADDR"] == "10.0.0.1"
    assert variables({})["MASTER_PORT"] == str(port_in_job(7, 0, 0))


def devices_and_threads() -> list[object]:
    import torch

    from deltalm_ds.training import distributed

    del os.environ["RANK"], os.environ["OMP_NUM_THREADS"]
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}
    job = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    os.environ.update(step | job, SLURM_STEP_NODELIST="here", SLURM_CPUS_PER_TASK="3")
    with mock.patch("os.sched_getaffinity") as cores:
        cores.return_value = range(6)
        distributed.join_processes()
    found: list[object] = [torch.get_num_threads()]
    accelerator = mock.Mock()
    accelerator.device_name.return_value = "cuda"
    accelerator.communication_backend_name.return_value = "gloo"
    os.environ["SLURM_LOCALID"] = "1"
    for count in (8, 1):  # GPUs that this task sees
        accelerator.device_count.return_value = count
        del os.environ["RANK"]
        with mock.patch("deepspeed.get_accelerator", return_value=accelerator):
            found.append(str(distributed.join_processes().device))
    return found


def test_a_task_takes_its_own_cores_and_gpu() -> None:
    """Whether srun shows it all GPUs of the node or, with --gpus-per-task, its own alone."""
    (outcome,) = run_distributed(devices_and_threads, 1)
    assert outcome.value == [3, "cuda:1", "cuda:0"]
