"""The real command under every launcher that its users have: equal losses, and nothing that outlives it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import REPOSITORY, free_port

from deltalm_ds.training.monitor import read_metrics

BIN = Path(sys.executable).parent
OF_TWO = ["deepspeed", "hostfile", "torchrun", "mpirun"]


@pytest.fixture(scope="module")
def hostfile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this machine alone: several would need ssh."""
    path = tmp_path_factory.mktemp("hosts") / "hostfile"
    path.write_text("localhost slots=2\n")
    return path


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
    }[launcher]


def start(
    launcher: str, hostfile: Path, output: Path, *options: object, steps: int
) -> subprocess.Popen[bytes]:
    """Its words go to the file beside `output` that `words_of` reads."""
    if launcher == "mpirun" and shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed")
    words = [
        *command(launcher, hostfile),
        *("deltalm_ds/pretrain.py", "--deepspeed_config", "ds_configs/zero2.json"),
        *("--output", output, "--steps", steps, "--batch-size", 5, "--log-every", 1),
        *("--max-source-length", 32, "--validation-samples", 1, "--text-samples", 1),
        *options,
    ]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment["DS_ACCELERATOR"] = "cpu"
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


def losses(output: Path, corpus: Path, launcher: str, hostfile: Path) -> list[float]:
    """Of two steps."""
    process = start(launcher, hostfile, output, "--data", corpus, "--num-loader-workers", 0, steps=2)
    with ended(process):
        assert process.wait(timeout=240) == 0, words_of(output)
    return [record["loss"] for record in read_metrics(output) if record["kind"] == "train"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, small_corpus: Path, hostfile: Path) -> list[float]:
    return losses(tmp_path_factory.mktemp("expected") / "run", small_corpus, "python", hostfile)


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun", "mpirun"])
def test_two_processes_train_as_one_does(
    tmp_path: Path, small_corpus: Path, expected: list[float], launcher: str, hostfile: Path
) -> None:
    found = losses(tmp_path / "run", small_corpus, launcher, hostfile)
    assert len(found) == 2
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("launcher", OF_TWO)
def test_nothing_outlives_a_killed_launcher(
    tmp_path: Path, small_corpus: Path, launcher: str, hostfile: Path
) -> None:
    """Ranks, their loader workers, and what deepspeed starts in between."""
    output = tmp_path / "run"
    process = start(
        launcher, hostfile, output, "--data", small_corpus, "--num-loader-workers", 1, steps=100_000
    )
    with ended(process) as started:
        end = time.monotonic() + 240
        while not ((output / "metrics.jsonl").exists() and len(read_metrics(output)) > 1):
            assert process.poll() is None, words_of(output)
            assert time.monotonic() < end, words_of(output)
            time.sleep(0.1)
        started += psutil.Process(process.pid).children(recursive=True)
        assert sum("spawn_main" in " ".join(one.cmdline()) for one in started) >= 2  # loader workers
        process.kill()
        _, alive = psutil.wait_procs(started, timeout=60)
        assert [one.cmdline() for one in alive] == []


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
