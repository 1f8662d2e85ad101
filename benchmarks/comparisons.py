"""Whether pre-training helps, and whether the interleaved decoder does: the same tuning from four starts.

    python benchmarks/comparisons.py DATA --work FOLDER

An encoder is trained here by mlm and tlm and made into a DeltaLM with an interleaved decoder and with
standard ones of its size (cross-attention random, or copied from self-attention). The three are pre-trained
alike, and tuned for translation from English into French as is a model of new weights. Each start is tuned
with several seeds; mean and spread are told.

What is done is not done again.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tasks import call, markdown

from deltalm_ds.files import write_text_atomically
from deltalm_ds.tables import format_table
from deltalm_ds.training.monitor import read_metrics

T = TypeVar("T")

LENGTHS = ("--max-source-length", 128, "--max-target-length", 128)
TUNING = (
    *("--batch-tokens", 4000, "--micro-batch-tokens", 4000, "--schedule", "linear", "--warmup-steps", 100),
    *("--patience", 0, "--save-every", 1000, "--validation-samples", 300, *LENGTHS),
)
TEXT = ("mono/en.txt", "mono/fr.txt", "mono/de.txt", "mt/en-fr", "mt/en-de")
NEW = "new weights"
DECODERS = {
    "interleaved": (),
    "standard-random": ("--decoder", "standard", "--cross-attention-start", "random"),
    "standard-copied": ("--decoder", "standard", "--cross-attention-start", "copied"),
}
METRICS = ("loss", "bleu", "chrf")


@dataclass(kw_only=True)
class Settings:
    """Tune from different starts."""

    data: tyro.conf.Positional[Path]
    """Folder with the real text."""
    work: Path
    """Folder for data and runs."""
    seeds: int = 3
    """Runs of each start."""
    encoder_steps: int = 900
    """Steps of 16 samples of 128 tokens that the encoder is trained for."""
    pretraining_steps: int = 400
    """As many that each DeltaLM is pre-trained for."""
    tuning_steps: int = 200
    """Steps of 4,000 tokens that each run is tuned for."""
    at_once: int = 2
    """Runs at the same time, which share the cores."""
    results: Path = Path(__file__).parent / "results"
    """Folder for the table."""


def main(settings: Settings) -> int:
    """Make the starts, tune from each, and print and write the table."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // settings.at_once)))
    prepared = settings.work / "data"
    if not (prepared / "manifest.json").is_file():
        text = [settings.data / name for name in TEXT]
        call(
            sys.executable, "-m", "deltalm_ds.prepare", *text, "--output", prepared, "--vocabulary-size", 8000
        )
    new = ("--preset", "mini", "--tokenizer", next(prepared.glob("*.model")))
    # First come, first served: no job is before what it waits for, so the workers never wait for one another.
    with ThreadPoolExecutor(settings.at_once) as pool:
        encoder = pool.submit(trained_encoder, settings)
        seeds = range(1, settings.seeds + 1)
        runs = {NEW: [pool.submit(tuned, NEW, seed, settings, *new) for seed in seeds]}
        starts = {
            name: pool.submit(after, encoder, pretrained, name, settings, *options)
            for name, options in DECODERS.items()
        }
        for name, start in starts.items():
            runs[name] = [pool.submit(after, start, tuned, name, seed, settings) for seed in seeds]
        rows: list[tuple[str, ...]] = [("start", "seeds", *METRICS)]
        for name, futures in runs.items():
            found = [future.result() for future in futures]
            rows.append((name, str(len(found)), *(summary([one[key] for one in found]) for key in METRICS)))
            print(format_table(rows), flush=True)
    settings.results.mkdir(exist_ok=True)
    write_text_atomically(settings.results / "comparisons.md", markdown("Pre-training and the decoder", rows))
    return 0


def after(start: Future[Path], run: Callable[..., T], name: str, *rest: Any) -> T:
    """`run` from the model folder that `start` makes."""
    return run(name, *rest, "--from", start.result())


def trained_encoder(settings: Settings) -> Path:
    """The folder of an encoder trained by mlm and tlm, saved as XLM-R saves."""
    objectives = ("--monolingual-objective", "mlm", "--pair-objective", "tlm")
    return trained("encoder", settings.encoder_steps, settings, "--preset", "mini", *objectives)


def pretrained(name: str, settings: Settings, *options: object) -> Path:
    """The folder of a pre-trained DeltaLM."""
    return trained(name, settings.pretraining_steps, settings, *options)


def trained(name: str, steps: int, settings: Settings, *options: object) -> Path:
    """The model folder of a pre-training run, which goes on where it was stopped."""
    output = settings.work / "pretrained" / name
    if not (output / "model" / "config.json").is_file():
        begun = (output / "checkpoints").is_dir()
        start = ("--resume", *without_start(options)) if begun else options
        call(
            *(sys.executable, "deltalm_ds/pretrain.py", "--data", settings.work / "data", "--output", output),
            *("--steps", steps, "--batch-size", 16, "--micro-batch-size", 16),
            *("--monolingual-share", 0.5, "--learning-rate", 1e-3, "--validate-every", 300),
            *("--save-every", 300, *LENGTHS, *start),
        )
    return output / "model"


def tuned(name: str, seed: int, settings: Settings, *options: object) -> dict[str, float]:
    """The last validation of a tuning run."""
    output = settings.work / "tuned" / f"{name.replace(' ', '-')}-{seed}"
    if not (output / "model" / "config.json").is_file():
        begun = (output / "checkpoints").is_dir()
        start = ("--resume", *without_start(options)) if begun else options
        call(
            *(sys.executable, "deltalm_ds/finetune.py", "--output", output, "--seed", seed, *TUNING),
            *("--task", "translation", "--data", settings.data / "mt" / "en-fr", "--source-language", "en"),
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
