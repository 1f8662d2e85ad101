"""Training on a real SLURM: the paper's batch script, made small by sbatch's options and the site file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from local_slurm import REPOSITORY, LocalSlurm
from site_files import write_site

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.training.monitor import read_metrics

STEPS = 6
SMALL = (
    *("--steps", STEPS, "--batch-size", 8, "--micro-batch-size", 1, "--log-every", 1, "--warmup-steps", 2),
    *("--max-source-length", 32, "--max-target-length", 32, "--validation-samples", 1, "--text-samples", 1),
    *("--learning-rate", 0.001, "--num-loader-workers", 0),
)
TWO_BY_TWO = ("--nodes", 2, "--ntasks-per-node", 2, "--gpus-per-node", 2)
ONE_BY_TWO = ("--nodes", 1, "--ntasks-per-node", 2, "--gpus-per-node", 2)


@pytest.fixture(scope="module")
def encoder(small_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny InfoXLM, in Hugging Face's layout."""
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    folder = tmp_path_factory.mktemp("infoxlm")
    config = XLMRobertaConfig(
        vocab_size=Corpus.open(small_corpus).vocabulary.mask_id + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def site(small_corpus: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    return write_site(
        folder,
        f"DATA={small_corpus}",
        f"START_FROM={encoder}",
        f"TRAINING_OPTIONS=({' '.join(map(str, SMALL))})",
    )


@pytest.fixture(scope="module")
def uninterrupted(
    cluster: LocalSlurm, small_corpus: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output of two tasks that srun started, without a batch script: they meet at their first node."""
    output = tmp_path_factory.mktemp("srun") / "run"
    done = cluster.run(*srun_command(small_corpus, encoder, output), timeout=900)
    assert done.stderr.count(f"step {STEPS}/{STEPS}") == 1
    return output


def losses(output: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(output) if record["kind"] == "train"]


def test_the_papers_script_small_and_rescaled(
    cluster: LocalSlurm, site: Path, encoder: Path, uninterrupted: Path
) -> None:
    """Begun on two nodes and continued on one: the losses of the run that was never stopped."""
    output, log = site.parent / "runs" / "pretrain-64gpu", site.parent / "job.log"
    logs = []
    for options, more in ((TWO_BY_TWO, ("--stop-after", STEPS // 2)), (ONE_BY_TWO, ())):
        job = cluster.sbatch("slurm/pretrain_64gpu.sh", *options, "--output", log, site=site, arguments=more)
        job.wait_for("COMPLETED", seconds=900)
        logs.append(sorted((output / "logs" / f"{job.number}.0").glob("rank-*.log")))
    assert [len(files) for files in logs] == [4, 2]
    first, second = (files[0].read_text() for files in logs)
    assert f"--from {encoder}" in first
    assert "--preset base" in first
    assert f"resuming after step {STEPS // 2}" in second
    assert losses(output) == pytest.approx(losses(uninterrupted), rel=1e-5)
    assert len(losses(output)) == STEPS
    assert (output / "model" / "model.safetensors").exists()


def test_nothing_outlives_srun(
    cluster: LocalSlurm, small_corpus: Path, encoder: Path, tmp_path: Path
) -> None:
    words = srun_command(small_corpus, encoder, tmp_path / "run", "--steps", 100_000)
    with (tmp_path / "log").open("wb") as log:
        srun = subprocess.Popen(
            [str(word) for word in words],
            cwd=REPOSITORY,
            env=cluster.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    metrics = tmp_path / "run" / "metrics.jsonl"
    cluster.wait_until(
        lambda: metrics.exists() and metrics.read_text().count("\n") > 2,
        900,
        (tmp_path / "log").read_text,
    )
    assert len(cluster.processes()) > 3
    srun.kill()
    srun.wait()
    cluster.wait_until(lambda: not cluster.processes(), 60, lambda: str(cluster.processes()))


def srun_command(data: Path, encoder: Path, output: Path, *options: object) -> list[object]:
    return [
        *("srun", "--ntasks", 2, "--nodes", 2, "--kill-on-bad-exit=1", sys.executable),
        *("deltalm_ds/pretrain.py", "--deepspeed_config", "ds_configs/zero2.json", "--preset", "base"),
        *("--data", data, "--from", encoder, "--output", output, *SMALL, *options),
    ]
