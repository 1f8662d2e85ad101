"""What `bash slurm/NAME.sh` submits, and what --dry-run says of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from local_slurm import REPOSITORY, LocalSlurm
from site_files import write_scripted_site, write_site

SCRIPTS = sorted(path.name for path in (REPOSITORY / "slurm").glob("*.sh"))
PARTS = ("common.sh", "guard.sh", "site.sh", "supervise.sh")
BATCH_SCRIPTS = [name for name in SCRIPTS if name not in PARTS]
# What some cannot do without.
ARGUMENTS = {
    "pretrain_multi.sh": ["--output", "runs/large", "--preset", "large"],
    "finetune.sh": ["--task", "translation", "--data", "wmt", "--from", "model", "--output", "runs/tuned"],
    "score.sh": ["model", "test.en", "test.fr", "fr"],
}


def bash(*words: object, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({} if site is None else {"DELTALM_SITE": str(site)})}
    return subprocess.run(
        ["bash", *map(str, words)], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", BATCH_SCRIPTS)
def test_every_script_says_what_would_run(name: str, tmp_path: Path) -> None:
    site = write_site(tmp_path, f"DATA={tmp_path}/data", f"RECIPE={tmp_path}", "export SBATCH_PARTITION=gpu")
    done = bash(f"slurm/{name}", "--nodes", 3, "--dry-run", "--", *ARGUMENTS.get(name, []), site=site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# 3 nodes, ")
    assert "export SBATCH_PARTITION=gpu" in done.stdout
    assert f"--nodes 3 slurm/{name}" in done.stdout
    assert list(tmp_path.iterdir()) == [site], "nothing is written"


def test_the_papers_run() -> None:
    """With site.sh as it comes: the run in full, and what is to be filled in."""
    done = bash("slurm/pretrain_64gpu.sh", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.startswith("# 8 nodes, 64 tasks, 8 a node")
    words = done.stdout.replace(" \\\n", " ")
    for option in (
        *("--preset base", "--steps 600000", "--batch-size 2048", "--max-source-length 512"),
        *("--max-target-length 512", "--monolingual-objective span-corruption", "--resume-if-begun"),
        *("--pair-objective translation-span-corruption", "--from $START_FROM", "ds_configs/zero2.json"),
    ):
        assert option in words
    assert [line.split(" is not set")[0].split()[-1] for line in done.stderr.splitlines()] == [
        "DATA",
        "START_FROM",
    ]


def test_options_of_the_programs_exist() -> None:
    """The command of the dry run, as the program itself reads it."""
    from deltalm_ds.commands import parse
    from deltalm_ds.training.settings import PretrainSettings

    words = bash("slurm/pretrain_64gpu.sh", "--dry-run").stdout.replace(" \\\n", " ").split()
    options = words[words.index(str(REPOSITORY / "deltalm_ds/pretrain.py")) + 1 :]
    settings = parse(PretrainSettings, "pretrain", options).complete()
    assert (settings.steps, settings.preset, settings.batch_size) == (600_000, "base", 2048)
    assert settings.resume_if_begun


def test_the_doctor_looks_at_what_the_run_will_use(tmp_path: Path) -> None:
    from deltalm_ds.commands import parse
    from deltalm_ds.diagnosing.settings import DoctorSettings

    site = write_site(tmp_path, f"DATA={tmp_path}", "START_FROM=nothing", "DOCTOR=1")
    said = bash("slurm/pretrain_64gpu.sh", "--dry-run", site=site).stdout.replace(" \\\n", " ")
    (line,) = (line for line in said.splitlines() if "deltalm_ds.doctor" in line)
    settings = parse(DoctorSettings, "doctor", line.split("deltalm_ds.doctor")[1].split())
    assert (settings.data, settings.output) == (tmp_path, tmp_path / "runs" / "pretrain-64gpu")


@pytest.mark.parametrize(("words", "message"), [
    (["pretrain_64gpu.sh"], "DATA is not set in "),
    (["pretrain_multi.sh", "--dry-run"], "--output FOLDER"),
    (["finetune.sh", "--dry-run"], "--task translation"),
    (["score.sh", "--dry-run"], "MODEL SOURCES REFERENCES LANGUAGE"),
])  # fmt: skip
def test_mistakes_are_one_line(words: list[str], message: str) -> None:
    done = bash(f"slurm/{words[0]}", *words[1:])
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_submission_takes_its_queue_from_the_site_file(cluster: LocalSlurm, tmp_path: Path) -> None:
    site = write_scripted_site(tmp_path, "export SBATCH_PARTITION=urgent")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text('[{"step": 1}]')
    options = ("--nodes", 1, "--ntasks-per-node", 2, "--gpus-per-node", 1, "--output", tmp_path / "log")
    done = cluster.run(
        *("bash", "slurm/pretrain_multi.sh", *options, "--", "--output", tmp_path / "run", "--seed", 7),
        env={**cluster.environment, "DELTALM_SITE": str(site)},
    )
    job = cluster.job(done.stdout.split()[-1])
    job.wait_for("COMPLETED")
    assert job.shown()["Partition"] == "urgent"
    assert "--seed 7" in (tmp_path / "run" / "logs" / "newest" / "rank-1.log").read_text()
