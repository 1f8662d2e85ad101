"""A node that SLURM loses."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from site_files import write_scripted_site
from test_batch_scripts import Run


@pytest.mark.parametrize("number", [0, 1])
def test_a_node_that_loses_slurmd_alone(cluster: LocalSlurm, tmp_path: Path, number: int) -> None:
    """SLURM takes the node for lost and requeues the job; its ranks, and on the first node the batch script,
    live on until slurmd is back."""
    node = cluster.nodes[number]
    run = Run(cluster, write_scripted_site(tmp_path), tmp_path / "run", [{"wait": True}, {"step": 9}])
    run.job.wait_until(lambda: run.says("start 0"))
    cluster.kill_slurmd(node)
    run.job.wait_until(lambda: run.job.restarts() == 1)
    run.job.wait_until(lambda: cluster.node_state(node) == "DOWN")
    cluster.start_slurmd(node)
    said = run.end()
    assert said.startswith("COMPLETED after 1"), said
    if number == 1:
        assert f"SLURM starts the job again itself: Node failure on {node}" in said
    assert cluster.orphans() == []
