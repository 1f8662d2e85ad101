"""What a tiny model learns from real text in a quarter of an hour on two CPU cores.

    python benchmarks/real_text.py TEXT... --work FOLDER

prepares the text with a tokenizer of 16,000 pieces, trains the tiny model from nothing in two processes with
ZeRO-2, and then demands of the last validation, for both objectives and counting no sentinels: a loss below
the tokens' own unigram entropy, and at least 0.1 nat below that with another sample's source. The loss with
the source of another sample of the same language is printed beside them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from deltalm_ds.training.monitor import read_metrics

ROOT = Path(__file__).resolve().parent.parent
LEAST_GAIN = 0.1
OBJECTIVES = ("span_corruption", "translation_span_corruption")


@dataclass(kw_only=True)
class Settings:
    """Prepare real text, train the tiny model on it, and judge the result."""

    text: tyro.conf.Positional[tuple[Path, ...]]
    """Folders or files as `deltalm_ds.prepare` takes them, with sentence pairs among them."""
    work: Path
    """Folder for the prepared data and the run; it must not hold a run already."""
    steps: int = 2700
    """Optimizer steps of 16 samples of 64 tokens."""
    processes: int = 2
    """Training processes."""


def main(settings: Settings) -> int:
    """0 if both objectives have learned enough, else 1."""
    data, run = settings.work / "data", settings.work / "run"
    prepare = [sys.executable, "-m", "deltalm_ds.prepare", *settings.text, "--output", data]
    subprocess.run([str(p) for p in (*prepare, "--vocabulary-size", 16_000)], cwd=ROOT, check=True)
    train = [
        *(Path(sys.executable).parent / "deepspeed", "--num_gpus", settings.processes),
        *("deltalm_ds/pretrain.py", "--deepspeed_config", "ds_configs/zero2.json"),
        *("--data", data, "--output", run, "--preset", "tiny", "--dropout", 0),
        *("--steps", settings.steps, "--batch-size", 16, "--learning-rate", 0.0015),
        *("--max-source-length", 64, "--max-target-length", 64),
        *("--validate-every", settings.steps // 6, "--validation-samples", 96),
    ]
    start = time.monotonic()
    subprocess.run([str(part) for part in train], cwd=ROOT, check=True)
    print(f"\ntrained in {(time.monotonic() - start) / 60:.1f} minutes\n")
    return judge(run)


def judge(run: Path) -> int:
    """Print the last validation of a run as a table; 0 if it is good enough, else 1."""
    last = [record for record in read_metrics(run) if record["kind"] == "validation"][-1]
    print(
        "| objective | nats a token of text | with another sample's source | and of the same language "
        "| unigram entropy | enough |\n|---|---|---|---|---|---|"
    )
    all_enough = True
    for objective in OBJECTIVES:
        loss, other, alike, entropy = (
            last[f"{key}/{objective}"]
            for key in ("text", "text_with_other_source", "text_with_same_language", "unigram_entropy")
        )
        enough = loss < entropy and other - loss >= LEAST_GAIN
        all_enough &= enough
        numbers = " | ".join(f"{number:.3f}" for number in (loss, other, alike, entropy))
        print(f"| {objective} | {numbers} | {'yes' if enough else 'no'} |")
    return 0 if all_enough else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
