"""prepare.sh and score.sh by MPI over two nodes, finetune.sh."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from made_model import made_lines, write_model_folder
from made_text import contents, make, write_text
from site_files import write_scripted_site, write_site

# SLURM has the nodes' names from the configuration, the machine has one name.
MPI = 'MPI_LAUNCHER=(mpirun --bind-to none --map-by "ppr:$TASKS_PER_NODE:node")'
needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")


@needs_mpi
def test_prepared_on_two_nodes(cluster: LocalSlurm, tmp_path: Path) -> None:
    text = write_text(tmp_path / "text")
    site = write_site(tmp_path, MPI, f"RECIPE={text}", f"DATA={tmp_path}/data")
    options = ("--vocabulary-size", 150, "--character-coverage", 1, "--workers", 1)
    job = cluster.sbatch(
        "slurm/prepare.sh", "--nodes", 2, "--output", tmp_path / "log", site=site, arguments=options
    )
    job.wait_for("COMPLETED", seconds=240)
    expected = {"tokenizer": None, "vocabulary_size": 150, "character_coverage": 1.0}
    make(text, tmp_path / "expected", names=("",), **expected)
    assert contents(tmp_path / "data") == contents(tmp_path / "expected")
    said = (tmp_path / "runs" / "prepare-data" / "logs" / "newest" / "rank-0.log").read_text()
    assert said.count("is ready") == 1


@needs_mpi
def test_generated_and_scored_on_two_nodes(cluster: LocalSlurm, tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "tuned" / "model", languages=["fr"])
    lines = "".join(f"{line}\n" for line in made_lines(20))
    for name in ("test.en", "test.fr"):
        (tmp_path / name).write_text(lines, encoding="utf-8")
    arguments = (model, tmp_path / "test.en", tmp_path / "test.fr", "fr", "--buffer-lines", 4)
    job = cluster.sbatch(
        "slurm/score.sh",
        *("--nodes", 2, "--ntasks-per-node", 1, "--gpus-per-node", 1, "--output", tmp_path / "log"),
        site=write_site(tmp_path, MPI),
        arguments=arguments,
    )
    job.wait_for("COMPLETED", seconds=240)
    output = tmp_path / "runs" / f"score-tuned-test.en-{job.number}"
    assert len((output / "outputs.txt").read_text(encoding="utf-8").splitlines()) == 20
    assert "bleu" in json.dumps(json.loads((output / "scores.json").read_text())).lower()
    assert "bleu  nrefs:1" in job.log()


def test_srun_without_an_mpi_plugin_is_refused(cluster: LocalSlurm) -> None:
    """Each task would do all the work, and write the same files."""
    done = cluster.run(
        *("srun", "--ntasks", 2, "--mpi=none", sys.executable, "-m", "deltalm_ds.prepare", "/dev/null"),
        *("--output", "/dev/null/no"),
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "--mpi=pmix" in done.stderr
    assert "Traceback" not in done.stderr


def test_finetuning_is_named_and_told_its_options(cluster: LocalSlurm, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text('[{"step": 1}]')
    job = cluster.sbatch(
        "slurm/finetune.sh",
        *("--ntasks-per-node", 2, "--gpus-per-node", 2, "--output", tmp_path / "log"),
        site=write_scripted_site(tmp_path),
        arguments=("--task", "translation", "--data", tmp_path, "--output", tmp_path / "run"),
    )
    job.wait_for("COMPLETED")
    said = (tmp_path / "run" / "logs" / f"{job.number}.0" / "rank-1.log").read_text()
    assert "rank 1 of 2" in said
    assert re.search(r"finetune\.py .*--resume-if-begun --task translation", said)
