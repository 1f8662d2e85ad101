"""The doctor itself, before a job: on a node whose disk is small, in a mount of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from local_slurm import LocalSlurm
from site_files import write_site

# Two nodes on one machine disturb each other: only the disk's size is judged.
OPTIONS = (
    *("--min-free-gigabytes 0.05", "--disk-megabytes 4", "--product-seconds 0.2", "--message-megabytes 1"),
    *("--min-memory-gigabytes 0", "--min-disk-share 0", "--min-product-share 0", "--min-pair-share 0"),
)
PYTHON = """#!/bin/sh
if [ "$SLURMD_NODENAME" = {node} ]; then
    exec unshare --mount sh -c 'mount -t tmpfs -o size=20m tmpfs {output} && exec {python} "$@"' sh "$@"
fi
exec {python} "$@"
"""


def test_a_node_with_a_full_disk_is_excluded(cluster: LocalSlurm, tmp_path: Path, small_corpus: Path) -> None:
    node, output = cluster.nodes[1], tmp_path / "run"
    output.mkdir()
    python = tmp_path / "python"
    python.write_text(PYTHON.format(node=node, output=output, python=sys.executable))
    python.chmod(0o755)
    site = write_site(
        *(tmp_path, f"PYTHON={python}", f"DATA={small_corpus}", "START_FROM=nothing", "DOCTOR=1"),
        f"DOCTOR_OPTIONS=({' '.join(OPTIONS)})",
    )
    job = cluster.sbatch(
        "slurm/pretrain_64gpu.sh",
        *("--nodes", 2, "--ntasks-per-node", 2, "--gpus-per-node", 2, "--output", tmp_path / "log"),
        site=site,
        arguments=("--output", output),
    )
    job.wait_until(lambda: job.restarts() == 1 and job.state() == "PENDING")
    assert f"requeued: the doctor excludes {node}" in job.log()
    job.wait_until(lambda: job.shown()["ExcNodeList"] == node)
    said = (output / "logs" / f"{job.number}.0" / "doctor-0.log").read_text()
    assert "GB free for --output, below 0.05" in said
    job.cancel()
    job.wait_for("CANCELLED")
