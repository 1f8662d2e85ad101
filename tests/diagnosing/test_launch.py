from __future__ import annotations

import socket

import pytest

from deltalm_ds.diagnosing.launch import find_launch, nodes_lacking_ranks
from deltalm_ds.errors import UserError

SRUN = {
    **{"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"},
    **{"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURMD_NODENAME": "n2"},
    **{"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "6", "SLURM_STEP_ID": "0", "SLURM_NODEID": "1"},
}


def test_srun_says_all() -> None:
    launch = find_launch(SRUN)
    assert (launch.rank, launch.world_size, launch.local_rank) == (3, 4, 1)
    assert (launch.node, launch.address) == ("n2", "n1")
    assert launch.expected == {"n1": 2, "n2": 2}


def test_neighbouring_steps_and_jobs_meet_at_other_ports() -> None:
    ids = [("7", "0"), ("7", "1"), ("8", "0")]
    ports = [find_launch({**SRUN, "SLURM_JOB_ID": job, "SLURM_STEP_ID": step}).port for job, step in ids]
    assert len(set(ports)) == 3
    assert find_launch({**SRUN, "SLURM_JOB_ID": "7", "MASTER_PORT": "1234"}).port == 1234


def test_a_batch_script_itself_is_alone() -> None:
    batch = {name: value for name, value in SRUN.items() if "STEP" not in name}
    launch = find_launch({**batch, "SLURM_PROCID": "0"})
    assert (launch.rank, launch.world_size, launch.address, launch.port) == (0, 1, "127.0.0.1", 0)


def test_torchrun_answers_at_the_meeting_place_itself() -> None:
    made = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    made |= {"MASTER_ADDR": "n1", "MASTER_PORT": "1234", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    launch = find_launch(made)
    assert (launch.rank, launch.world_size, launch.address, launch.port) == (1, 4, "n1", 1234)
    assert launch.is_store_there
    assert launch.node == socket.gethostname()


def test_mpirun_goes_before_what_slurm_says_of_its_daemons() -> None:
    mpi = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    launch = find_launch({**SRUN, **mpi, "OMPI_COMM_WORLD_LOCAL_RANK": "1"})
    assert (launch.rank, launch.world_size, launch.local_rank) == (5, 8, 1)
    assert (launch.address, launch.expected) == ("n1", {"n1": 4, "n2": 4})
    local = find_launch({**mpi, "OMPI_COMM_WORLD_LOCAL_SIZE": "8"})
    assert local.address == "127.0.0.1"


def test_srun_with_an_mpi_plugin_is_srun_and_mpichs_mpirun_is_not() -> None:
    launch = find_launch({**SRUN, "PMI_RANK": "3", "PMI_SIZE": "4"})
    assert (launch.rank, launch.expected) == (3, {"n1": 2, "n2": 2})
    launch = find_launch({**SRUN, "PMI_RANK": "5", "PMI_SIZE": "8"})
    assert (launch.rank, launch.world_size) == (5, 8)


def test_several_hosts_need_the_first_ones_name() -> None:
    with pytest.raises(UserError, match="MASTER_ADDR"):
        find_launch({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"})


def test_the_node_of_ranks_that_did_not_come() -> None:
    launch = find_launch(SRUN)
    assert nodes_lacking_ranks(launch, {0: "n1", 1: "n1"}) == ["n2"]
    assert nodes_lacking_ranks(launch, {0: "n1", 1: "n1", 3: "n2"}) == ["n2"]
    assert nodes_lacking_ranks(launch, {3: "n2"}) == ["n1", "n2"]


def test_without_slurm_only_a_node_that_somebody_came_from_is_known() -> None:
    made = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    launch = find_launch(made)
    assert nodes_lacking_ranks(launch, {0: "a", 1: "a", 2: "b"}) == ["b"]
    assert nodes_lacking_ranks(launch, {0: "a", 1: "a"}) == []
