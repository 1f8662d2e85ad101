"""`pretrain` under each launcher, small."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
from distributed import REPOSITORY, free_port

from deltalm_ds.training.monitor import read_metrics

BIN = Path(sys.executable).parent


def command(launcher: str, hostfile: Path) -> list[object]:
    alone = ("--no_ssh_check", "--master_addr", "127.0.0.1")
    deepspeed = [BIN / "deepspeed", "--master_port", free_port()]
    return {
        "python": [sys.executable],
        "deepspeed": [*deepspeed, "--num_gpus", 2],
        "hostfile": [*deepspeed, "--hostfile", hostfile, *alone],
        # It finds a port itself: one that was free a moment ago may be taken by now.
        "torchrun": [BIN / "torchrun", "--standalone", "--nproc-per-node", 2],
        "mpirun": ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", 2, sys.executable],
        "srun": ["srun", "--input=none", "--ntasks", 2, "--cpus-per-task", 1, sys.executable],
    }[launcher]


def start(
    launcher: str,
    hostfile: Path,
    output: Path,
    *options: object,
    steps: int,
    environment: Mapping[str, str] = os.environ,
) -> subprocess.Popen[bytes]:
    """Its words go to the file beside `output` that `words_of` reads."""
    words = [
        *command(launcher, hostfile),
        *("deltalm_ds/pretrain.py", "--deepspeed_config", "ds_configs/zero2.json"),
        *("--output", output, "--steps", steps, "--batch-size", 5, "--log-every", 1),
        *("--max-source-length", 32, "--validation-samples", 1, "--text-samples", 1),
        *options,
    ]
    path = f"{BIN}{os.pathsep}{environment['PATH']}"
    environment = {**environment, "PATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    with output.with_suffix(".txt").open("wb") as said:
        return subprocess.Popen(
            [str(word) for word in words],
            cwd=REPOSITORY,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def words_of(output: Path) -> str:
    return output.with_suffix(".txt").read_text(errors="replace")


def losses(
    output: Path, corpus: Path, launcher: str, hostfile: Path, environment: Mapping[str, str] = os.environ
) -> list[float]:
    """Of two steps."""
    options = ("--data", corpus, "--num-loader-workers", 0)
    process = start(launcher, hostfile, output, *options, steps=2, environment=environment)
    with ended(process):
        assert process.wait(timeout=240) == 0, words_of(output)
    return [record["loss"] for record in read_metrics(output) if record["kind"] == "train"]


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[list[psutil.Process]]:
    """Whatever the test finds, the process, its children, and those put in the list end with it."""
    started: list[psutil.Process] = []
    try:
        yield started
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            started += psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for one in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
