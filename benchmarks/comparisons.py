"""Whether pre-training helps, and the interleaved decoder: the same tuning from different starts.

    python benchmarks/comparisons.py DATA pretraining --work FOLDER
    python benchmarks/comparisons.py DATA decoder --work FOLDER

pretraining: French headlines from a model that read the text of DATA, and from new weights of its size.
decoder: an encoder trained here by mlm and tlm, made into a DeltaLM with an interleaved decoder and with
standard ones of its size (cross-attention random, or copied from self-attention), pre-trained alike and
tuned for translation. Each start is tuned with several seeds; mean and spread are told.

What is done is not done again.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tasks import call, markdown

from deltalm_ds.files import write_text_atomically
from deltalm_ds.tables import format_table
from deltalm_ds.training.monitor import read_metrics

LENGTHS = ("--max-source-length", 128, "--max-target-length", 128)
TUNING = (
    *("--batch-tokens", 4000, "--micro-batch-tokens", 4000, "--schedule", "linear", "--warmup-steps", 100),
    *("--patience", 0, "--save-every", 1000, "--validation-samples", 300, *LENGTHS),
)


@dataclass(kw_only=True)
class Settings:
    """Tune from different starts."""

    data: tyro.conf.Positional[Path]
    """Folder with the real text."""
    study: tyro.conf.Positional[Literal["pretraining", "decoder"]]
    """Which question."""
    work: Path
    """Folder for data and runs."""
    seeds: int = 3
    """Runs of each start."""
    pretraining_steps: int = 1_500
    """Steps of 16 samples of 128 tokens that a start is pre-trained for; the encoder has as many."""
    tuning_steps: int = 300
    """Steps of 4,000 tokens that each run is tuned for."""
    results: Path = Path(__file__).parent / "results"
    """Folder for the table."""


def main(settings: Settings) -> int:
    """Make the starts, tune from each, and print and write the table."""
    prepared = settings.work / "data"
    if not (prepared / "manifest.json").is_file():
        text = (settings.data / "mono", settings.data / "mt" / "en-fr", settings.data / "mt" / "en-de")
        prepare = (sys.executable, "-m", "deltalm_ds.prepare")
        call(*prepare, *text, "--output", prepared, "--vocabulary-size", 8000)
    tokenizer = next(prepared.glob("*.model"))
    new = ("--preset", "mini", "--tokenizer", tokenizer)
    if settings.study == "pretraining":
        starts = {
            "pre-trained": ("--from", pretrained("deltalm", settings, "--preset", "mini")),
            "new weights": new,
        }
        task = ("--task", "summarization", "--data", settings.data / "sum-fr", "--source-language", "fr")
        metrics = ("loss", "rouge1", "rouge2", "rouge")
    else:
        objectives = ("--monolingual-objective", "mlm", "--pair-objective", "tlm")
        encoder = pretrained("encoder", settings, "--preset", "mini", *objectives)
        starts = {
            name: ("--from", pretrained(name, settings, "--from", encoder, *options))
            for name, options in (
                ("interleaved", ()),
                ("standard-random", ("--decoder", "standard", "--cross-attention-start", "random")),
                ("standard-copied", ("--decoder", "standard", "--cross-attention-start", "copied")),
            )
        }
        task = ("--task", "translation", "--data", settings.data / "mt" / "en-fr", "--source-language", "en")
        metrics = ("loss", "bleu", "chrf")
    rows: list[tuple[str, ...]] = [("start", "seeds", *metrics)]
    for name, options in starts.items():
        found = [tuned(name, seed, settings, *task, *options) for seed in range(1, settings.seeds + 1)]
        rows.append((name, str(settings.seeds), *(summary([one[key] for one in found]) for key in metrics)))
        print(format_table(rows))
    settings.results.mkdir(exist_ok=True)
    write_text_atomically(settings.results / f"comparison-{settings.study}.md", markdown(rows))
    return 0


def pretrained(name: str, settings: Settings, *options: object) -> Path:
    """The model folder of a pre-training run, which goes on where it was stopped."""
    output = settings.work / "pretrained" / name
    if not (output / "model" / "config.json").is_file():
        begun = (output / "checkpoints").is_dir()
        start = ("--resume", *without_start(options)) if begun else options
        call(
            *(sys.executable, "deltalm_ds/pretrain.py", "--data", settings.work / "data", "--output", output),
            *("--steps", settings.pretraining_steps, "--batch-size", 16, "--micro-batch-size", 16),
            *("--learning-rate", 1e-3, "--validate-every", 500, "--save-every", 500, *LENGTHS, *start),
        )
    return output / "model"


def tuned(name: str, seed: int, settings: Settings, *options: object) -> dict[str, float]:
    """The last validation of a tuning run."""
    output = settings.work / settings.study / f"{name}-{seed}"
    if not (output / "model" / "config.json").is_file():
        begun = (output / "checkpoints").is_dir()
        start = ("--resume", *without_start(options)) if begun else options
        call(
            *(sys.executable, "deltalm_ds/finetune.py", "--output", output, "--seed", seed, *TUNING),
            *("--learning-rate", 1e-3, "--steps", settings.tuning_steps),
            *("--validate-every", settings.tuning_steps, *start),
        )
    return [record for record in read_metrics(output) if record["kind"] == "validation"][-1]


def without_start(options: tuple[object, ...]) -> tuple[object, ...]:
    """Options of a new run as its continuation has them: without --from."""
    given = list(options)
    if "--from" in given:
        place = given.index("--from")
        del given[place : place + 2]
    return tuple(given)


def summary(values: list[float]) -> str:
    """Mean and spread, from the lowest to the highest."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
