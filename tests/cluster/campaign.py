"""Kill training runs on a real SLURM at random moments, and tell what comes of it: `make cluster-campaign`.

    python tests/cluster/campaign.py --kills 30 --work FOLDER

Every run has 200 steps and five checkpoints. Kills come at random moments, of a kind each in turn; every
sixth waits for a checkpoint to be written. The run must reach its last step with the losses of an undisturbed
one, bit for bit. What is done is in FOLDER/kills.jsonl and not done again.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from kills import KINDS, Kill, is_saving, kill_and_follow
from local_slurm import REPOSITORY, LocalSlurm
from training_job import STEPS, TrainingJob

from deltalm_ds.demo import write_sample
from deltalm_ds.files import write_text_atomically
from deltalm_ds.prepare import PrepareSettings, prepare

KILLS_OF_A_RUN = 3


@dataclass(kw_only=True)
class Settings:
    """Kill training runs at random moments."""

    work: Path
    """Folder for data and runs."""
    kills: int = 30
    """Kills in all, up to three a run."""
    seed: int = 1
    """Names the moments."""
    results: Path = REPOSITORY / "docs" / "campaign.md"
    """File for the table."""


def main(settings: Settings) -> int:
    """Run the campaign and write the table."""
    data = settings.work / "data"
    if not (data / "manifest.json").is_file():
        _prepare(settings.work / "text", data)
    done = settings.work / "kills.jsonl"
    kills = [Kill(**json.loads(line)) for line in done.read_text().splitlines()] if done.exists() else []
    start = time.monotonic()
    with LocalSlurm() as cluster:
        expected = TrainingJob(cluster, settings.work / f"undisturbed-{len(kills)}", data)
        expected.finish(seconds=900)
        _check(expected, expected)
        while len(kills) < settings.kills:
            number = kills[-1].run + 1 if kills else 0
            kills += _killed_run(cluster, settings, number, len(kills), data, expected)
            with done.open("w") as file:
                file.writelines(json.dumps(dataclasses.asdict(kill)) + "\n" for kill in kills)
            share = len(kills) / settings.kills
            left = (time.monotonic() - start) * (1 / share - 1)
            print(f"{len(kills)} of {settings.kills} kills, about {left / 60:.0f} min left", file=sys.stderr)
    write_text_atomically(settings.results, _report(kills))
    return 0


def _prepare(text: Path, data: Path) -> None:
    write_sample(text)
    inputs = (*(text / "mono" / f"{code}.txt" for code in ("de", "en", "ru")), text / "pairs" / "en-de")
    prepare(PrepareSettings(inputs=inputs, output=data, vocabulary_size=1200, workers=1), lambda line: None)


def _killed_run(
    cluster: LocalSlurm, settings: Settings, number: int, done: int, data: Path, expected: TrainingJob
) -> list[Kill]:
    draw = random.Random(f"{settings.seed} {number}")
    folder = settings.work / f"run-{number}-{time.time_ns()}"
    harm = "witness save" if number % 2 else "witness"
    run = TrainingJob(cluster, folder, data, harm=harm)
    kinds = list(KINDS)
    # The first comes before the save that is made long.
    steps = [draw.randrange(41, 75), *sorted(draw.sample(range(80, STEPS - 10), KILLS_OF_A_RUN - 1))]
    kills = []
    for place, step in enumerate(steps):
        if run.job.state() == "COMPLETED":  # before SLURM noticed a kill
            break
        kind = kinds[(done + place) % len(kinds)]
        if "save" in harm and place == 1:  # within the save that slowed.py makes long
            run.job.wait_until(lambda: run.did("save") and is_saving(run), 300)
            time.sleep(draw.random() * 3)
        else:
            run.job.wait_until(lambda step=step: run.last_step() >= step, 300)
            time.sleep(draw.random() * 0.5)
        kills.append(kill_and_follow(cluster, run, kind, draw, number))
        print(kills[-1], file=sys.stderr)
    run.finish(seconds=600)
    _check(run, expected)
    return kills


def _check(run: TrainingJob, expected: TrainingJob) -> None:
    found = run.faults()
    if run.losses() != expected.losses() or run.validations() != expected.validations():
        found.append("other losses than the undisturbed run's")
    if found:
        raise SystemExit(f"{run.output}: " + "; ".join(found))


_INTRODUCTION = """# Killed on purpose

`make cluster-campaign`: {num_kills} kills -9 over {num_runs} whole runs of `slurm/pretrain_64gpu.sh`, made
small ({steps} steps, a checkpoint every 40, dropout 0.1), on a real SLURM of two nodes with two tasks each,
at random moments. Every run reached its last step with the losses of an undisturbed run, bit for bit; no
start passed over or loaded a checkpoint that was not whole, nothing was lost beyond the newest checkpoint,
no start wrote a record or a checkpoint after a later one had taken the folder over, no process outlived its
job, and every step was recorded once.

| killed | kills | while saving | steps done again, mean (most) | s to the next step, median (most) |
|---|---|---|---|---|
"""
_EVERY_KILL = """
Every kill. SLURM needs 10 to 30 s to miss a slurmd; the ranks train and save until then, and that is not done
again: 200 stands where they had reached the last step. A batch script that is killed leaves the guard, which
has the ranks save.

| killed | at step | newest checkpoint | resumed after | s |
|---|---|---|---|---|
"""


def _report(kills: list[Kill]) -> str:
    text = _INTRODUCTION.format(num_kills=len(kills), num_runs=len({kill.run for kill in kills}), steps=STEPS)
    for kind in KINDS:
        own = [kill for kill in kills if kill.kind == kind]
        if own:
            again = [max(0, kill.at_step - kill.resumed_after) for kill in own]
            seconds = [kill.seconds for kill in own]
            num_saving = sum(kill.is_saving for kill in own)
            text += (
                f"| {kind} | {len(own)} | {num_saving} | {statistics.mean(again):.0f} ({max(again)}) "
                f"| {statistics.median(seconds):.0f} ({max(seconds):.0f}) |\n"
            )
    text += _EVERY_KILL
    for kill in kills:
        when = ", saving" if kill.is_saving else ""
        steps = f"{kill.at_step} | {kill.newest_checkpoint} | {kill.resumed_after}"
        text += f"| {kill.kind}{when} | {steps} | {kill.seconds:.0f} |\n"
    return text


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
