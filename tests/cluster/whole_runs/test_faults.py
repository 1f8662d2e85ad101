"""Faults in whole runs: each ends or goes on as promised, with the reason in one line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from training_job import SAVE_EVERY, STEPS, TrainingJob

from deltalm_ds.training.monitor import read_metrics


def test_a_rank_that_hangs_then_one_that_raises(
    cluster: LocalSlurm, tmp_path: Path, small_corpus: Path, undisturbed: TrainingJob
) -> None:
    run = TrainingJob(cluster, tmp_path, small_corpus, harm="witness hang raise")
    run.finish()
    log = run.job.log()
    assert run.job.restarts() == 2
    (hang,) = [line for line in run.said(0).splitlines() if line.startswith("hang: ")]
    assert hang.startswith("hang: rank 1 on ")
    assert "in step 130" in hang
    assert (run.output / "hang" / "step_130-rank_1.txt").is_file()
    assert "requeued: saved, and asked to stop or hung (exit code 85)" in log
    assert "RuntimeError: made by the test" in log  # the head of the log: the last lines of the rank
    (raised,) = [line for line in log.splitlines() if "requeued: rank 2 on " in line]
    assert "failed first: Exited with exit code 1" in raised
    assert run.faults() == []
    assert run.losses() == undisturbed.losses()


def test_a_loss_that_is_not_a_number(cluster: LocalSlurm, tmp_path: Path, small_corpus: Path) -> None:
    run = TrainingJob(cluster, tmp_path, small_corpus, harm="witness nan")
    run.finish()
    (line,) = [line for line in run.said(0).splitlines() if line.startswith("step 170 skipped")]
    assert "rank 1 has a loss that is not finite on samples" in line
    last = [record for record in read_metrics(run.output) if record["kind"] == "train"][-1]
    assert (last["step"], last["skipped_steps"]) == (STEPS, 1)
    assert run.faults() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for one checkpoint and no more."""
    folder = tmp_path / "runs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_then_damage_then_another_size(
    cluster: LocalSlurm, tmp_path: Path, small_corpus: Path, undisturbed: TrainingJob, small_disk: Path
) -> None:
    run = TrainingJob(cluster, tmp_path, small_corpus)
    run.job.wait_for("FAILED", seconds=300)
    (reason,) = [line for line in run.said(0).splitlines() if line.startswith("deltalm-ds pretrain: error: ")]
    assert "no space for checkpoint" in reason
    assert "free space or set --output elsewhere" in reason
    assert "not requeued: " in run.job.log()
    newest = run.newest_checkpoint()
    assert newest >= SAVE_EVERY, "what was saved before is there"

    subprocess.run(["mount", "-o", "remount,size=400m", small_disk], check=True)
    job = run.submit("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2")
    job.wait_until(lambda: run.newest_checkpoint() > newest, 300)
    job.cancel()
    job.wait_for("CANCELLED")
    newest = run.newest_checkpoint()
    damaged = run.output / "checkpoints" / f"step_{newest}"
    shutil.copytree(damaged, damaged.with_name(f"step_{newest + 1}"))
    with next(damaged.with_name(f"step_{newest + 1}").glob("*optim_states.pt")).open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    (run.output / "checkpoints" / "latest").write_text("step_777\n")

    run.submit("--nodes=1", "--ntasks-per-node=3", "--gpus-per-node=3")
    run.finish()
    said = run.said(0)
    assert f"resuming after step {newest}," in said
    assert f"converting step_{newest} from ZeRO 2 on 4 processes for ZeRO 2 on 3" in said
    assert [step for step, _ in run.losses()] == list(range(1, STEPS + 1))
    found, expected = ([loss for _, loss in each.losses()] for each in (run, undisturbed))
    assert found == pytest.approx(expected, rel=1e-4)
