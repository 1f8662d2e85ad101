"""Every downstream task on real text, from its public format to a score, in one table.

    python benchmarks/tasks.py DATA --work FOLDER
    python benchmarks/tasks.py DATA --work FOLDER --only translation headlines

DATA holds mt/, qg/, sum-fr/, webnlg/ and mono/ (benchmarks/README.md says what). Every run goes on where it
was stopped, and what is done is not done again. Models are small and trained from nothing: the table tells
that the whole way works and what it costs, not what DeltaLM can do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from task_data import NAMES, Direction, TaskData, task_data

from deltalm_ds.files import write_text_atomically
from deltalm_ds.tables import format_table
from deltalm_ds.training.monitor import read_metrics

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ("de", "en", "fr", "hi", "ru", "zh")
"""Languages of mono/ that tell which language an output is in."""


@dataclass(kw_only=True)
class Settings:
    """Fine-tune, generate and score."""

    data: tyro.conf.Positional[Path]
    """Folder with the real text."""
    work: Path
    """Folder for data made of it, runs and outputs."""
    only: tuple[str, ...] = ()
    """Names of the runs to do. Default: all."""
    scale: float = 1.0
    """Factor of the passes over the training data that each run has."""
    processes: int = 1
    """Training processes."""
    results: Path = Path(__file__).parent / "results"
    """Folder for tasks.md."""


def main(settings: Settings) -> int:
    """Run what is asked for, and print and write the table."""
    rows: list[tuple[str, ...]] = [
        ("task", "direction", "metric", "score", "copy", "right language", "minutes", "steps")
    ]
    if unknown := set(settings.only) - set(NAMES):
        print(f"no run {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
        return 2
    for name in settings.only or NAMES:
        rows += run_task(task_data(name, settings.data, settings.work / "data"), settings)
    table = format_table(rows)
    print(f"\n{table}")
    settings.results.mkdir(exist_ok=True)
    write_text_atomically(settings.results / "tasks.md", markdown("Downstream tasks", rows))
    return 0


def run_task(data: TaskData, settings: Settings) -> Iterator[tuple[str, ...]]:
    """One row a direction."""
    output = settings.work / "runs" / data.name
    train(data, output, settings)
    records = [record for record in read_metrics(output) if record["kind"] == "train"]
    seconds = (settings.work / "runs" / f"{data.name}.seconds").read_text()
    for direction in data.directions:
        scores = score(data, direction, output / "model", settings)
        yield (
            *(data.name, direction.name, data.metric, f"{scores.value:.2f}", f"{scores.copying:.2f}"),
            *(f"{scores.right_language:.1%}", f"{float(seconds) / 60:.0f}", f"{records[-1]['step']:,}"),
        )


def train(data: TaskData, output: Path, settings: Settings) -> None:
    """Fine-tune, or go on with it; the seconds of all attempts are kept beside the run."""
    if (output / "model" / "config.json").is_file():
        return
    spent = output.with_name(f"{output.name}.seconds")
    options = [*data.options, "--output", output]
    if (output / "checkpoints").is_dir():
        options.append("--resume")
    launcher = [sys.executable]
    if settings.processes > 1:
        launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", str(settings.processes)]
    started = time.monotonic()
    try:
        call(*launcher, "deltalm_ds/finetune.py", *options, "--epochs", data.epochs * settings.scale)
    finally:
        before = float(spent.read_text()) if spent.is_file() else 0.0
        spent.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(spent, str(before + time.monotonic() - started))


@dataclass(frozen=True)
class Scores:
    """Of one direction."""

    value: float
    copying: float
    """What outputs that are their sources would have."""
    right_language: float
    """Share of outputs in the language that was asked for."""


def score(data: TaskData, direction: Direction, model: Path, settings: Settings) -> Scores:
    """Generate for the test sources and score, with the commands that users have."""
    folder = settings.work / "outputs" / data.name
    folder.mkdir(parents=True, exist_ok=True)
    outputs = folder / f"{direction.name}.txt"
    if not outputs.exists():
        generate = (sys.executable, "-m", "deltalm_ds.generate", model)
        files = ("--input", direction.sources, "--output", outputs, "--resume")
        call(*generate, *files, "--target-language", direction.target_language, *direction.generate_options)
    found = evaluate(data, direction, outputs, settings)
    copied = evaluate(data, direction, direction.sources, settings)
    metrics = found["metrics"][data.metric]["parts"]
    return Scores(
        value=metrics[data.shown_part],
        copying=copied["metrics"][data.metric]["parts"][data.shown_part],
        right_language=found["outputs"]["right_language"],
    )


def evaluate(data: TaskData, direction: Direction, outputs: Path, settings: Settings) -> dict:
    """What `score` says of some outputs."""
    samples = [f"{language}={settings.data / 'mono' / language}.txt" for language in SAMPLES]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deltalm_ds.score", str(outputs)),
            *("--references", *map(str, direction.references), "--metrics", data.metric),
            *("--language", direction.target_language, "--sources", str(direction.sources)),
            *("--language-samples", *samples, "--json", "-"),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)["directions"][0]


def call(*command: object) -> None:
    """Run a command in the repository; its failure ends this one."""
    print("+", *command, file=sys.stderr, flush=True)
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def markdown(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A table for a file."""
    head, *body = rows
    lines = [f"# {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)]) + "\n"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
