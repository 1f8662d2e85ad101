"""The real command under every launcher that its users have: equal losses, and nothing that outlives it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil
import pytest
from launchers import ended, losses, start, words_of

from deltalm_ds.training.monitor import read_metrics

needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
OF_TWO = ["deepspeed", "hostfile", "torchrun", pytest.param("mpirun", marks=needs_mpi)]


@pytest.fixture(scope="module")
def hostfile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this machine alone: several would need ssh."""
    path = tmp_path_factory.mktemp("hosts") / "hostfile"
    path.write_text("localhost slots=2\n")
    return path


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, small_corpus: Path, hostfile: Path) -> list[float]:
    return losses(tmp_path_factory.mktemp("expected") / "run", small_corpus, "python", hostfile)


@pytest.mark.parametrize("launcher", OF_TWO)
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
