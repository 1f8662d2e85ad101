"""The real command, alone and under every launcher that jobs are started by."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import REPOSITORY, free_port

BIN = Path(sys.executable).parent
# Small, and wide: what is looked for here is not this machine's illness.
QUICK = [
    *("--disk-megabytes", "4", "--message-megabytes", "1", "--product-seconds", "0.1"),
    *("--min-product-share", "0.02", "--min-pair-share", "0.02", "--min-memory-gigabytes", "0"),
    *("--min-free-gigabytes", "0"),
]


def launchers(port: str) -> dict[str, list[str]]:
    return {
        "python": [sys.executable, "-m", "deltalm_ds.doctor"],
        "deepspeed": [
            str(BIN / "deepspeed"),
            "--num_gpus",
            "2",
            "--master_port",
            port,
            "deltalm_ds/doctor.py",
        ],
        "torchrun": [
            *(str(BIN / "torchrun"), "--nproc-per-node", "2", "--master-port", port),
            *("-m", "deltalm_ds.doctor"),
        ],
        "mpirun": [
            *("mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2"),
            *(sys.executable, "-m", "deltalm_ds.doctor"),
        ],
    }


def examine(launcher: str, *options: object) -> subprocess.CompletedProcess[str]:
    port = str(free_port())
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(REPOSITORY), "SLURMD_NODENAME": "here"}
    if launcher == "mpirun":
        environment["MASTER_PORT"] = port  # which its ranks share
    return subprocess.run(
        [*launchers(port)[launcher], *QUICK, *map(str, options)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun", "mpirun"])
def test_two_ranks_meet_under_any_launcher(launcher: str, tmp_path: Path) -> None:
    if launcher == "mpirun" and shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    done = examine(launcher, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fit: 2 ranks on 1 node" in done.stderr
    if launcher != "deepspeed":  # which says things itself
        assert done.stdout == ""


def test_alone_and_stdout_has_the_one_line_or_nothing(tmp_path: Path) -> None:
    done = examine("python", "--output", tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "fit: 1 rank on 1 node" in done.stderr

    done = examine("python", "--data", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"here is bad: reading --data failed on rank 0: {tmp_path} is not a prepared folder" in done.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--min-disk-share", "2"], "--min-disk-share is a share, 0 to 1, not 2.0"),
        (["--timeout-seconds", "0"], "--timeout-seconds must be above 0, not 0.0"),
        (["--min-open-files", "-1"], "--min-open-files must be 0 or more, not -1"),
        (["--json", "/nowhere/all.json"], "--json: there is no folder /nowhere"),
    ],
)
def test_impossible_options(options: list[str], word: str) -> None:
    done = examine("python", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"deltalm-ds doctor: error: {word}\n"
