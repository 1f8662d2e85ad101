"""Whatever asks a job to stop, and whenever: it saves, is requeued, goes on, and ends as if undisturbed."""

from __future__ import annotations

from pathlib import Path

from local_slurm import LocalSlurm
from training_job import STEPS, TrainingJob


def come_to_the_time_limit(run: TrainingJob) -> None:
    """Five minutes before it the batch script's ranks are told; the next start has time again."""
    for minutes in (2, 600):
        run.cluster.run("scontrol", "update", f"JobId={run.job.number}", f"TimeLimit={minutes}")
        run.job.wait_until(lambda: run.job.state() == "PENDING", 120)


def test_a_job_that_is_interrupted_in_every_phase(
    cluster: LocalSlurm, tmp_path: Path, small_corpus: Path, undisturbed: TrainingJob
) -> None:
    run = TrainingJob(
        cluster, tmp_path, small_corpus, harm="data save validation limit", watchdog_seconds=120
    )
    job, start = run.job, 0
    expected = []

    def interrupt(when: str, act: object, **named: object) -> None:
        nonlocal start
        assert callable(act)
        act(**named)
        start += 1
        job.wait_for_restart(start)
        job.wait_until(lambda: run.trains(start), 120)
        said = run.said(start - 1)
        assert "stopped after step" in said, (when, said[-2000:])
        expected.append((when, run.resumed_after(start)))

    job.wait_until(lambda: run.newest_checkpoint() >= 40 and run.last_step() > 50, 180)
    interrupt("in training, by USR1", lambda: job.signal("USR1"))
    job.wait_until(lambda: run.did("data"), 120)
    interrupt("waiting for data, by TERM", lambda: job.signal("TERM"))
    job.wait_until(lambda: run.did("save"), 120)
    interrupt("saving, by USR1", lambda: job.signal("USR1"))
    job.wait_until(lambda: run.did("validation"), 120)
    interrupt("in validation, by TERM", lambda: job.signal("TERM"))
    job.wait_until(lambda: run.last_step() > 120, 120)
    interrupt("in training, by scontrol requeue", job.requeue)
    job.wait_until(lambda: run.did("limit"), 120)
    interrupt("before the time limit", lambda: come_to_the_time_limit(run))
    run.finish()

    # In the phases that were made long, they stop within them.
    steps = [step for _, step in expected]
    assert (*steps[1:4], steps[5]) == (70, 80, 100, 160), expected
    assert steps[0] > 50, expected
    assert steps[4] > 120, expected
    assert run.faults() == []
    assert run.losses() == undisturbed.losses()
    assert run.validations() == undisturbed.validations()
    assert (run.output / "model").is_dir()
    assert job.restarts() == 6
    assert run.losses()[-1][0] == STEPS
