"""A node that SLURM loses."""

from __future__ import annotations

from pathlib import Path

from local_slurm import LocalSlurm
from site_files import write_scripted_site
from test_batch_scripts import Run


def test_a_node_that_loses_slurmd_alone(cluster: LocalSlurm, tmp_path: Path) -> None:
    """SLURM takes the node for lost and requeues the job; its ranks live on until slurmd is back."""
    run = Run(cluster, write_scripted_site(tmp_path), tmp_path / "run", [{"wait": True}, {"step": 9}])
    run.job.wait_until(lambda: run.says("start 0"))
    cluster.kill_slurmd(cluster.nodes[1])
    run.job.wait_until(lambda: run.job.restarts() == 1)
    run.job.wait_until(lambda: cluster.node_state(cluster.nodes[1]) == "DOWN")
    cluster.start_slurmd(cluster.nodes[1])
    said = run.end()
    assert said.startswith("COMPLETED after 1"), said
    assert f"SLURM starts the job again itself: Node failure on {cluster.nodes[1]}" in said
    assert cluster.orphans() == []
