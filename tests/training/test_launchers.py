"""The real command under every launcher that its users have."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import REPOSITORY, free_port

from deltalm_ds.training.monitor import read_metrics

BIN = Path(sys.executable).parent


def launchers(port):
    return {
        "python": [sys.executable],
        "deepspeed": [BIN / "deepspeed", "--num_gpus", "2", "--master_port", port],
        "torchrun": [BIN / "torchrun", "--nproc-per-node", "2", "--master-port", port],
        "mpirun": ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2", sys.executable],
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory, small_corpus):
    return losses(tmp_path_factory.mktemp("expected") / "run", small_corpus, "python")


def losses(output, corpus, launcher):
    """Two steps under a launcher; every loss by step."""
    port = str(free_port())
    command = [
        *launchers(port)[launcher],
        *("deltalm_ds/pretrain.py", "--deepspeed_config", "ds_configs/zero2.json"),
        *("--data", corpus, "--output", output, "--steps", 2, "--batch-size", 5, "--log-every", 1),
        *("--max-source-length", 32, "--validation-samples", 1, "--text-samples", 1),
        *("--num-loader-workers", 0),
    ]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment["DS_ACCELERATOR"] = "cpu"
    environment["MASTER_PORT"] = port  # which mpirun's ranks share
    done = subprocess.run(
        [str(part) for part in command],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [record["loss"] for record in read_metrics(output) if record["kind"] == "train"]


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun", "mpirun"])
def test_two_processes_train_as_one_does(tmp_path, small_corpus, expected, launcher):
    if launcher == "mpirun" and shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    found = losses(tmp_path / "run", small_corpus, launcher)
    assert len(found) == 2
    assert found == pytest.approx(expected, rel=1e-5)
