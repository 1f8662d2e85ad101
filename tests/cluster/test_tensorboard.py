"""tensorboard.sh: who hears it, and what a browser shows of a run."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import psutil
from local_slurm import LocalSlurm
from tensorboard_page import browser_on, needs_browser, served
from torch.utils.tensorboard import SummaryWriter
from training_job import STEPS, TrainingJob

from deltalm_ds.training.monitor import read_metrics


def test_tensorboard_listens_on_loopback_alone(cluster: LocalSlurm, tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "runs" / "mine" / "tensorboard")) as writer:
        writer.add_scalar("train/loss", 1.5, 1)
    with served(cluster, tmp_path, tmp_path / "runs") as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=60) as answer:
            assert json.load(answer) == ["mine/tensorboard"]
        listening = {
            connection.laddr.ip
            for connection in psutil.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        }
        assert listening == {"127.0.0.1"}
    assert cluster.orphans() == []


@needs_browser
def test_a_browser_shows_a_run(cluster: LocalSlurm, tmp_path: Path, undisturbed: TrainingJob) -> None:
    last = [record for record in read_metrics(undisturbed.output) if record["kind"] == "train"][-1]
    assert last["step"] == STEPS
    with (
        served(cluster, tmp_path, undisturbed.output) as port,
        browser_on(f"http://127.0.0.1:{port}/", height=4000) as page,  # charts out of sight are not drawn
    ):
        tags = ("train/loss", "train/tokens_per_second", "train/nll/en", "train/learning_rate")
        page.show(f"scalars&tagFilter=%5E({'|'.join(tags)})$", *tags)
        # The number that the chart's table has of the last step.
        page.show("timeseries", f"{last['loss']:.4f}".rstrip("0"), str(STEPS))
        page.show("text", "reconstructed spans", f"step\n{STEPS}")
