"""A training run on the local SLURM: the batch script of the paper, made small by options and a site file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from local_slurm import LocalSlurm
from site_files import write_site
from slurm_job import Job

from deltalm_ds.training.checkpoint_folder import LATEST, step_folders
from deltalm_ds.training.monitor import METRICS, read_metrics

CLUSTER = Path(__file__).resolve().parent

STEPS = 200
SAVE_EVERY = 40
VALIDATE_EVERY = 50

TRAINING_OPTIONS = """TRAINING_OPTIONS=(
    --preset tiny --steps {steps} --batch-size 10 --micro-batch-size 2 --dropout 0.1 --learning-rate 0.002
    --warmup-steps 20 --max-source-length 48 --max-target-length 48 --log-every 1 --save-every {save_every}
    --keep-checkpoints 9 --validate-every {validate_every} --validation-samples 8 --text-samples 1
    --num-loader-workers 1 --watchdog-least-seconds {watchdog_seconds}
)"""
OPTIONS = ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2")
"""What is changed by options of sbatch."""


def training_site(folder: Path, data: Path, *, harm: str = "", **changes: Any) -> Path:
    """A site file for runs in `folder`; `harm` is for slowed.py."""
    numbers = {"steps": STEPS, "save_every": SAVE_EVERY, "validate_every": VALIDATE_EVERY}
    values = {**numbers, "watchdog_seconds": 30, **changes}
    return write_site(
        folder,
        f"DATA={data}",
        "START_FROM=nothing",
        "export DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=",
        *([f"export REAL_PYTHON=$PYTHON HARM='{harm}'", f"PYTHON={CLUSTER}/slowed.sh"] if harm else []),
        TRAINING_OPTIONS.format(**values),
    )


class TrainingJob:
    """One run, from its first start to its last step."""

    def __init__(
        self, cluster: LocalSlurm, folder: Path, data: Path, *options: object, harm: str = "", **changes: Any
    ) -> None:
        self.cluster = cluster
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "runs" / "pretrain-64gpu"
        site = training_site(folder, data, harm=harm, **changes)
        self._folder, self._site = folder, site
        self.job: Job = self.submit(*OPTIONS, *options)

    def submit(self, *options: object) -> Job:
        """The same `sbatch` again, which goes on where the run was."""
        log = f"--output={self._folder}/job.log"
        self.job = self.cluster.sbatch("slurm/pretrain_64gpu.sh", log, *options, site=self._site)
        return self.job

    def last_step(self) -> int:
        """Of the training records; 0 before the first."""
        if not (self.output / METRICS).exists():
            return 0
        return max((record["step"] for record in read_metrics(self.output)), default=0)

    def newest_checkpoint(self) -> int:
        """Step of the newest committed checkpoint; 0 for none."""
        folders = step_folders(self.output / "checkpoints")
        return int(folders[0].name.removeprefix("step_")) if folders else 0

    def did(self, name: str, num_ranks: int = 4) -> bool:
        """Whether all ranks are in the phase that slowed.py makes slow."""
        return len(list(self.output.glob(f"did-{name}-*"))) == num_ranks

    def losses(self) -> list[tuple[int, float]]:
        """Step and loss of every training record, as they stand."""
        return [
            (record["step"], record["loss"])
            for record in read_metrics(self.output)
            if record["kind"] == "train"
        ]

    def validations(self) -> list[tuple[int, float]]:
        """The same of every validation."""
        return [
            (record["step"], record["loss"])
            for record in read_metrics(self.output)
            if record["kind"] == "validation"
        ]

    def said(self, start: int) -> str:
        """The log of rank 0 in one start of the job."""
        path = self.output / "logs" / f"{self.job.number}.{start}" / "rank-0.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def resumed_after(self, start: int) -> int:
        """The step that a start went on from; 0 if it began anew."""
        found = re.search(r"resuming after step ([\d,]+)", self.said(start))
        return int(found[1].replace(",", "")) if found else 0

    def trains(self, start: int) -> bool:
        """Whether that start has done a step."""
        return " loss " in self.said(start)

    def finish(self, seconds: float = 300) -> None:
        """Wait for the run's end."""
        self.job.wait_for("COMPLETED", seconds=seconds)

    def faults(self) -> list[str]:
        """What must not be in a finished run's folder."""
        found = []
        folder = self.output / "checkpoints"
        found += [str(path) for path in folder.iterdir() if path.suffix in (".tmp", ".removed")]
        steps = [step for step, _ in self.losses()]
        if steps != list(range(1, STEPS + 1)):
            found.append(f"records of steps {steps}")
        if (folder / LATEST).read_text().strip() != f"step_{STEPS}":
            found.append("latest is not the last step")
        for start in range(self.job.restarts() + 1):
            found += [line for line in self.said(start).splitlines() if "passed over" in line]
        return found + self._late_writes() + self.cluster.orphans()

    def _late_writes(self) -> list[str]:
        """What a start wrote after a later one had taken the folder over, where slowed.py noted it."""
        noted = self.output / "writes.tsv"
        if not noted.exists():
            return []
        writes = [line.split("\t") for line in noted.read_text().splitlines()]
        taken = {int(start): float(when) for start, what, when in writes if what == "took over"}
        return [
            f"start {start} {what} after start {later} had taken over"
            for start, what, when in writes
            for later, since in taken.items()
            if later > int(start) and float(when) > since
        ]
