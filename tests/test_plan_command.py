"""The command plan: what it prints, writes and draws, without deepspeed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deltalm_ds.training.deepspeed_batch import RequestedBatch
from deltalm_ds.training.deepspeed_config import read_deepspeed_config

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_DEEPSPEED = (
    "import sys, runpy; sys.modules['deepspeed'] = None; sys.argv[0] = 'plan'; "
    "runpy.run_module('deltalm_ds.plan', run_name='__main__')"
)


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_DEEPSPEED, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command(tmp_path: Path) -> None:
    """The paper's run: tables, the configuration, the picture."""
    written, drawn = tmp_path / "ds.json", tmp_path / "plan.svg"
    done = run_command("--model", "base", "--nodes", 8, "--write", written, "--picture", drawn)
    assert (done.returncode, done.stderr) == (0, "")
    assert "362,981,376 parameters, bf16" in done.stdout
    assert "600,000 steps of 2,048 samples" in done.stdout
    assert "assumed, not measured" in done.stdout
    assert len(re.findall(r"^[0-3], (?:none|every 2nd layer|every layer) ", done.stdout, flags=re.M)) == 12
    swept = [
        re.sub(",", "", line.split()[0])
        for line in done.stdout.split("other numbers of devices")[1].split("\n")[2:13]
    ]
    assert swept == [str(2**power) for power in range(11)]
    recommended = re.search(r"recommended: ZeRO stage (\d), .*?, micro-batches (\d+) x (\d+)", done.stdout)
    assert recommended
    config = read_deepspeed_config(
        written, RequestedBatch(None, None), 64, gradient_clipping=1.0, default_dtype="fp32"
    )
    stage, steps, samples = map(int, recommended.groups())
    assert (config.zero_stage, config.gradient_accumulation_steps, config.micro_batch_size) == (
        *(stage, steps, samples),
    )
    assert (config.dtype, config.global_batch_size) == ("bf16", 2048)
    picture = drawn.read_text(encoding="utf-8")
    assert "base, 363 million parameters: planned, not measured" in picture
    assert all(f">{part}<" in picture for part in ("weights", "optimizer", "activations"))


def test_a_cpu_has_no_times(tmp_path: Path) -> None:
    written = tmp_path / "ds.json"
    arguments = ("--model", "tiny", "--gpu", "cpu", "--gpus-per-node", 2, "--batch-size", 4)
    done = run_command(*arguments, "--write", written)
    assert (done.returncode, done.stderr) == (0, "")
    assert "process" in done.stdout
    assert "days" not in done.stdout
    assert '"enabled": false' in written.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--nodes", "0"), "--nodes must be at least 1, not 0"),
        (("--gpu", "h900"), "h900"),
        (("--mfu", "2"), "--mfu must lie in (0, 1], not at 2.0"),
        (
            ("--model", "xxl", "--gpus-per-node", "1", "--gpu", "h100", "--write", "never.json"),
            "--write never.json: nothing fits, so nothing is recommended",
        ),
        (("--model", "tiny", "--gpu", "cpu", "--write", "missing/folder/ds.json"), "missing/folder"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = run_command(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not Path("never.json").exists()
