"""Ways to kill a run on the local SLURM, and what has to hold after each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from local_slurm import LocalSlurm
from training_job import STEPS, TrainingJob


@dataclass(frozen=True)
class Kill:
    """What was killed, when, and how the run went on."""

    run: int
    """Number of the run, from 0."""
    kind: str
    at_step: int
    """Last recorded step when it was killed."""
    newest_checkpoint: int
    """Step of the newest committed checkpoint then."""
    is_saving: bool
    """Whether a checkpoint was being written then."""
    resumed_after: int
    """Step that the next start went on from; the last step where the run ended undisturbed, as it may before
    SLURM has noticed that a slurmd is gone."""
    seconds: float
    """Until the next start had done a step."""


def kill_a_rank(cluster: LocalSlurm, run: TrainingJob, draw: random.Random) -> None:
    """kill -9 for one rank of the four."""
    run.job.kill_rank(draw.randrange(4))


def kill_all_ranks(cluster: LocalSlurm, run: TrainingJob, draw: random.Random) -> None:
    """kill -9 for all ranks at once."""
    run.job.kill_all_ranks()


def kill_batch_script(cluster: LocalSlurm, run: TrainingJob, draw: random.Random) -> None:
    """kill -9 for the batch script's shell."""
    run.job.kill_batch_script()


def kill_slurmd(cluster: LocalSlurm, run: TrainingJob, draw: random.Random) -> None:
    """kill -9 for a node's slurmd alone: SLURM loses the node, on which the ranks live on."""
    _lose(cluster, run, draw, with_steps=False)


def kill_node(cluster: LocalSlurm, run: TrainingJob, draw: random.Random) -> None:
    """kill -9 for a node's slurmd, its slurmstepds and all tasks."""
    _lose(cluster, run, draw, with_steps=True)


def _lose(cluster: LocalSlurm, run: TrainingJob, draw: random.Random, *, with_steps: bool) -> None:
    node = draw.choice(cluster.nodes)
    before = run.job.restarts()
    cluster.kill_slurmd(node, with_steps=with_steps)
    # The node comes back when SLURM has given it up and requeued the job, or has seen the job end.
    run.job.wait_until(lambda: run.job.restarts() > before or run.job.state() != "RUNNING", 180)
    cluster.start_slurmd(node)


KINDS: dict[str, Callable[[LocalSlurm, TrainingJob, random.Random], None]] = {
    "a rank": kill_a_rank,
    "all ranks": kill_all_ranks,
    "the batch script": kill_batch_script,
    "a node's slurmd": kill_slurmd,
    "a node": kill_node,
}


def is_saving(run: TrainingJob) -> bool:
    """Whether files of a checkpoint are being written."""
    return any((run.output / "checkpoints").glob("step_*.tmp"))


def kill_and_follow(
    cluster: LocalSlurm, run: TrainingJob, kind: str, draw: random.Random, number: int = 0
) -> Kill:
    """Kill, and wait until the job trains again or is done."""
    start, begun = run.job.restarts(), time.monotonic()
    at_step, newest, saving = run.last_step(), run.newest_checkpoint(), is_saving(run)
    assert newest or saving, "a kill counts only once training has passed its first checkpoint or is saving"
    KINDS[kind](cluster, run, draw)

    def has_ended() -> bool:
        return run.job.state() == "COMPLETED" and run.last_step() == STEPS

    run.job.wait_until(
        lambda: (run.job.restarts() > start and run.trains(run.job.restarts())) or has_ended(), 240
    )
    resumed = run.resumed_after(run.job.restarts()) if run.job.restarts() > start else STEPS
    kill = Kill(number, kind, at_step, newest, saving, resumed, time.monotonic() - begun)
    # What was committed before the kill is there; a save under way may have been committed as well.
    assert resumed >= newest, kill
    return kill
