"""A run that is killed three times ends as if undisturbed. The long form of this is campaign.py."""

from __future__ import annotations

import random
from pathlib import Path

from kills import kill_and_follow
from local_slurm import LocalSlurm
from training_job import STEPS, TrainingJob


def test_three_kills(
    cluster: LocalSlurm, tmp_path: Path, small_corpus: Path, undisturbed: TrainingJob
) -> None:
    run = TrainingJob(cluster, tmp_path, small_corpus, harm="witness")
    draw = random.Random(1)
    for kind, step in (("a rank", 45), ("a node", 95), ("the batch script", 140)):
        run.job.wait_until(lambda step=step: run.last_step() >= step and run.newest_checkpoint(), 240)
        kill_and_follow(cluster, run, kind, draw)
    run.finish()
    assert run.faults() == []
    assert run.losses() == undisturbed.losses()
    assert run.validations() == undisturbed.validations()
    assert run.losses()[-1][0] == STEPS
