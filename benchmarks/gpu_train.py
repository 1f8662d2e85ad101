"""`make gpu-train`: pre-train at base size on GPUs through the kernels, killed on the way and resumed.

Runs `deepspeed deltalm_ds/pretrain.py` with ZeRO-2 in the GPU's 16 bits, kills all of it with -9 at a step,
resumes, and writes the curve, model FLOP utilisation and peak memory as gpu-train.json, .md and .svg.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch
import tyro

from deltalm_ds.files import write_text_atomically
from deltalm_ds.ops.cuda import choice
from deltalm_ds.training.monitor import METRICS, read_metrics

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent


@dataclass(kw_only=True)
class Settings:
    """Pre-train on a GPU with our kernels, kill the run, resume it, and keep what it shows."""

    run: Path = Path("runs/gpu-train")
    """Output folder of the run; it must not hold one already."""
    data: Path | None = None
    """Prepared folder. Default: the embedded sample, whose vocabulary is small; the paper's step needs data
    prepared with XLM-R's tokenizer."""
    preset: str = "base"
    """Size of the model."""
    steps: int = 300
    """Optimizer steps of the whole run."""
    kill_at: int = 120
    """Step after which all processes are killed."""
    save_every: int = 50
    """Steps between two checkpoints."""
    log_every: int = 10
    """Steps between two records."""
    batch_size: int = 256
    """Samples of a global batch."""
    micro_batch_size: int = 32
    """Samples a GPU computes at once."""
    processes: int = 1
    """GPUs."""
    kernels: str = "kernel"
    """DELTALM_KERNELS of the run."""
    results: Path = FOLDER / "results"
    """Folder for gpu-train.json, .md and .svg."""


def main(settings: Settings) -> None:
    """Train, kill, resume, write."""
    if (settings.run / METRICS).exists():
        sys.exit(f"gpu-train: {settings.run} holds a run: remove it, or name another folder by --run")
    os.environ[choice.VARIABLE] = settings.kernels  # for the run, and for the words about it
    killed_at = _train_until(settings, settings.kill_at)
    print(f"\nkilled after step {killed_at}; resuming\n", flush=True)
    subprocess.run(_command(settings, "--resume"), cwd=ROOT, env=_environment(), check=True)
    records = [record for record in read_metrics(settings.run) if record["kind"] == "train"]
    steps = [record["step"] for record in records]
    assert steps == list(range(settings.log_every, settings.steps + 1, settings.log_every)), steps
    result = summary(settings, killed_at, records)
    settings.results.mkdir(parents=True, exist_ok=True)
    write_text_atomically(settings.results / "gpu-train.json", json.dumps(result, indent=2) + "\n")
    write_text_atomically(settings.results / "gpu-train.md", markdown(result))
    draw = [sys.executable, ROOT / "docs/draw_curves.py", settings.run, settings.results / "gpu-train.svg"]
    title = f"{settings.preset}, killed after step {killed_at} and resumed"
    subprocess.run([str(part) for part in (*draw, "--title", title)], cwd=ROOT, check=True)
    print(markdown(result))


def summary(settings: Settings, killed_at: int, records: list[Mapping[str, Any]]) -> dict[str, Any]:
    """The run in numbers; rates are medians over the second half, when all is warm."""
    late = records[len(records) // 2 :]
    on_gpu = torch.cuda.is_available()
    return {
        "date": date.today().isoformat(),
        "gpu": torch.cuda.get_device_name() if on_gpu else "none",
        "processes": settings.processes,
        "torch": torch.__version__,
        "preset": settings.preset,
        "batch_size": settings.batch_size,
        "micro_batch_size": settings.micro_batch_size,
        "kernels": choice.description("cuda") if on_gpu else "",
        "killed_at": killed_at,
        "model_flop_utilisation": statistics.median(r["model_flop_utilisation"] for r in late),
        "tokens_per_second": statistics.median(r["tokens_per_second"] for r in late),
        "peak_memory_gib": max(r["memory_gib"] for r in records),
        "losses": {str(r["step"]): r["loss"] for r in records},
    }


def markdown(result: Mapping[str, Any]) -> str:
    """The page."""
    losses = result["losses"]
    first, last = next(iter(losses)), list(losses)[-1]
    return (
        f"# Pre-training on a GPU\n\n{result['date']}, {result['processes']} × {result['gpu']}, torch "
        f"{result['torch']}, preset {result['preset']}, ZeRO-2, {result['batch_size']} samples a step in "
        f"micro-batches of {result['micro_batch_size']}. {result['kernels']}.\n\n"
        f"Killed with -9 after step {result['killed_at']} and resumed.\n\n"
        "| loss | MFU | tokens/s | peak memory, GiB |\n|---|---|---|---|\n"
        f"| step {first}: {losses[first]:.3f}, step {last}: {losses[last]:.3f} "
        f"| {result['model_flop_utilisation']:.1%} | {result['tokens_per_second']:,.0f} "
        f"| {result['peak_memory_gib']:.1f} |\n\n![losses](gpu-train.svg)\n"
    )


def _train_until(settings: Settings, kill_at: int) -> int:
    """Start the run and kill it with all its processes; the last step it had recorded."""
    started = subprocess.Popen(_command(settings), cwd=ROOT, env=_environment())
    while (step := _last_step(settings.run)) < kill_at:
        if started.poll() is not None:
            sys.exit(f"gpu-train: the run ended with {started.returncode} before step {kill_at}; see above")
        time.sleep(0.1)
    processes = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes)
    return step


def _last_step(run: Path) -> int:
    path = run / METRICS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return max((record["step"] for record in whole), default=0)


def _command(settings: Settings, *more: str) -> list[str]:
    command = [
        *(Path(sys.executable).parent / "deepspeed", "--num_gpus", settings.processes),
        *("deltalm_ds/pretrain.py", "--deepspeed_config", "ds_configs/zero2.json"),
        *("--preset", settings.preset, "--output", settings.run, "--steps", settings.steps),
        *("--batch-size", settings.batch_size, "--micro-batch-size", settings.micro_batch_size),
        *("--warmup-steps", settings.steps // 10, "--log-every", settings.log_every),
        *("--save-every", settings.save_every, "--validate-every", settings.save_every, *more),
    ]
    if settings.data is not None:
        command += ["--data", settings.data]
    return [str(part) for part in command]


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
