"""What the batch scripts make of every end of a run: a scripted program, on a real SLURM.

All jobs are under way together; each test looks at its own.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from local_slurm import LocalSlurm
from site_files import write_scripted_site
from slurm_job import ENDED, Job

TWO_BY_TWO: tuple[object, ...] = ("--nodes", 2, "--ntasks-per-node", 2, "--gpus-per-node", 1)
# Not the whole nodes that the script asks for, so that jobs run side by side.
SHARED: tuple[object, ...] = ("--exclusive=user", "--mem", 1)


class Run:
    """A job with its output folder."""

    def __init__(
        self,
        cluster: LocalSlurm,
        site: Path,
        folder: Path,
        plan: list[dict[str, object]],
        options: tuple[object, ...] = TWO_BY_TWO,
    ) -> None:
        self.output = folder
        folder.mkdir()
        (folder / "plan.json").write_text(json.dumps(plan))
        self.job: Job = cluster.sbatch(
            "slurm/pretrain_64gpu.sh",
            *(*options, *SHARED, "--output", f"{folder}.log"),
            site=site,
            arguments=("--output", folder),
        )

    def log_of(self, rank: int, start: int = 0) -> str:
        """What a rank has said in a start."""
        path = self.output / "logs" / f"{self.job.number}.{start}" / f"rank-{rank}.log"
        return path.read_text() if path.exists() else ""

    def says(self, words: str, start: int = 0) -> bool:
        """Whether all four ranks have said so in this start."""
        return all(words in self.log_of(rank, start) for rank in range(4))

    def end(self) -> str:
        """The job's last state, and its log."""
        self.job.wait_until(lambda: self.job.state() in ENDED)
        return f"{self.job.state()} after {self.job.restarts()}\n{self.job.log()}"


PLANS: dict[str, list[dict[str, object]]] = {
    "asked": [{"wait": True}, {"step": 9}],
    "terminated": [{"wait": True}, {"step": 9}],
    "killed": [{"kill": 2}, {"step": 9}],
    "batch script": [{"wait": True}, {"step": 9}],
    "scontrol": [{"wait": True}, {"step": 9}],
    "time limit": [{"wait": True}, {"step": 9}],
    "time limit reached": [{"wait": True}, {"step": 9}],
    "cancelled": [{"wait": True}],
    "stopped": [{"wait": True}],
    "mistake": [{"exits": {"3": 2}}],
    "raises twice": [{"step": 4, "exits": {"1": 1}}],
    "raises elsewhere": [{"step": 4, "exits": {"1": 1}}, {"step": 5, "exits": {"1": 1}}, {"step": 9}],
    "no progress": [{"exit": 85}],
    "progress": [{"step": step, "exit": 85} for step in (1, 2, 3, 4, 5)] + [{"step": 9}],
}
# SLURM counts in minutes, and signals up to one before the time that it was told.
OPTIONS = {
    "time limit": (*TWO_BY_TWO, "--time", 1, "--signal", "USR1@50"),
    "time limit reached": (*TWO_BY_TWO, "--time", 1, "--signal", "CONT@1"),  # which says nothing
}
ACTIONS: dict[str, Callable[[Run], None]] = {
    "asked": lambda run: run.job.signal("USR1"),
    "terminated": lambda run: run.job.signal("TERM"),
    "batch script": lambda run: run.job.kill_batch_script(),
    "scontrol": lambda run: run.job.requeue(),
    "cancelled": lambda run: run.job.cancel(),
    "stopped": lambda run: stop(run),
}


def stop(run: Run) -> None:
    (run.output / "stop").touch()
    run.job.signal("USR1")


@pytest.fixture(scope="module")
def runs(cluster: LocalSlurm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("scripted")
    site = write_scripted_site(folder)
    runs = {
        name: Run(cluster, site, folder / name.replace(" ", "-"), plan, OPTIONS.get(name, TWO_BY_TWO))
        for name, plan in PLANS.items()
    }
    for name, act in ACTIONS.items():
        runs[name].job.wait_until(lambda name=name: runs[name].says("start 0"))
        act(runs[name])
    return runs


@pytest.mark.parametrize(
    "name",
    ["asked", "terminated", "killed", "batch script", "scontrol", "time limit", "time limit reached"],
)
def test_goes_on_by_itself(runs: dict[str, Run], name: str) -> None:
    said = runs[name].end()
    assert said.startswith("COMPLETED after 1"), said
    assert f"done: {runs[name].output}" in said
    reasons = {
        "killed": "requeued: rank 2 on ",
        "batch script": "requeued: the batch script was killed",
        "time limit reached": "requeued: ",  # srun may take its own SIGTERM for a rank's end
        "scontrol": "SLURM starts the job again itself: preempted, or requeued by hand",
    }
    assert reasons.get(name, "requeued: saved, and asked to stop or hung (exit code 85)") in said


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("cancelled", "CANCELLED after 0", "the job is cancelled"),
        ("stopped", "FAILED after 0", "stop asks; remove it and submit again"),
        ("mistake", "FAILED after 0", "not requeued: rank 3 on "),
        ("raises twice", "FAILED after 1", "exit code 1, after step 4, for the second time"),
        ("no progress", "FAILED after 3", "3 requeues in a row without a change of newest checkpoint's step"),
    ],
)
def test_ends_for_good(runs: dict[str, Run], name: str, state: str, reason: str) -> None:
    said = runs[name].end()
    assert said.startswith(state), said
    assert sum("not requeued: " in line and reason in line for line in said.splitlines()) == 1, said


@pytest.mark.parametrize(("name", "restarts"), [("raises elsewhere", 2), ("progress", 5)])
def test_any_number_of_requeues_with_progress(runs: dict[str, Run], name: str, restarts: int) -> None:
    said = runs[name].end()
    assert said.startswith(f"COMPLETED after {restarts}"), said


def test_the_first_failing_rank_heads_the_log(runs: dict[str, Run]) -> None:
    runs["raises twice"].end()
    log = runs["raises twice"].job.log()
    head = log.splitlines()[:6]
    assert "rank 1 on" in head[0]
    assert "failed first: Exited with exit code 1" in head[0]
    assert "rank 1 says why it fails" in head
    assert log.count("rank 1 says why it fails") == 2  # of both starts
    assert "first start" in log, "what was there before stays"


def test_a_node_that_the_doctor_finds_unfit_is_excluded(cluster: LocalSlurm, tmp_path: Path) -> None:
    site = write_scripted_site(tmp_path, "DOCTOR=1")
    options = ("--nodes", 1, "--ntasks-per-node", 4)
    run = Run(cluster, site, tmp_path / "run", [{"unfit": True}, {"step": 9}], options)
    said = run.end()
    assert said.startswith("COMPLETED after 1"), said
    first, second = (line.split(" on ")[1].split(",")[0] for line in said.splitlines() if "4 tasks; " in line)
    assert {first, second} == set(cluster.nodes)
    assert run.job.shown()["ExcNodeList"] == first
    assert f"requeued: the doctor excludes {first}" in said


def test_a_job_that_is_preempted_goes_on_when_there_is_room(cluster: LocalSlurm, tmp_path: Path) -> None:
    run = Run(cluster, write_scripted_site(tmp_path), tmp_path / "run", [{"wait": True}, {"step": 9}])
    run.job.wait_until(lambda: run.says("start 0"))
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/sh\nsleep 3\n")
    options = ("--partition", "urgent", "--nodes", 2, "--exclusive", "--output", tmp_path / "log")
    urgent = cluster.sbatch(script, *options)
    said = run.end()
    assert urgent.state() == "COMPLETED"
    assert said.startswith("COMPLETED after 1"), said
    assert "requeued: saved, and asked to stop or hung (exit code 85)" in said
    assert "was sent signal 15" in run.log_of(3)


def guards(run: Run) -> list[str]:
    """Numbers of the steps of the job that watch its batch script."""
    options = ("--steps", "--noheader", "--jobs", run.job.number, "--format=%i %j")
    steps = run.job.cluster.run("squeue", *options).stdout.splitlines()
    return [number for number, name in map(str.split, steps) if name == "guard"]


def test_a_guard_that_is_lost_is_replaced(cluster: LocalSlurm, tmp_path: Path) -> None:
    run = Run(cluster, write_scripted_site(tmp_path), tmp_path / "run", [{"wait": True}, {"step": 9}])
    run.job.wait_until(lambda: run.says("start 0") and guards(run))
    (first,) = guards(run)
    cluster.run("scancel", first)
    run.job.wait_until(lambda: guards(run) not in ([], [first]))
    run.job.kill_batch_script()
    said = run.end()
    assert said.startswith("COMPLETED after 1"), said
    assert "requeued: the batch script was killed" in said


def test_a_full_disk_that_hides_an_end(cluster: LocalSlurm, tmp_path: Path) -> None:
    """The batch script ends by itself and cannot record it: it was not killed for that."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        run = Run(cluster, write_scripted_site(tmp_path), disk / "run", [{"wait": True}])
        run.job.wait_until(lambda: run.says("start 0"))
        (run.output / "stop").touch()
        with (run.output / "slurm" / "history.tsv").open("a") as history:  # to the end of its page
            history.write("\n".rjust(-history.tell() % mmap.PAGESIZE))
        with contextlib.suppress(OSError), (disk / "filling").open("wb", buffering=0) as filling:
            while True:
                filling.write(bytes(mmap.PAGESIZE))
        run.job.signal("USR1")
        said = run.end()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert said.startswith("FAILED after 0"), said
    assert "not requeued: saved and stopped" in said


def test_nothing_is_left(runs: dict[str, Run], cluster: LocalSlurm) -> None:
    for run in runs.values():
        run.end()
    assert cluster.orphans() == []
