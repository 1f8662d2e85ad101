"""`pretrain --plan-data`: the run's own steps and batch size, without a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# The command, which must not have imported what a run needs.
PROGRAM = "import sys; from deltalm_ds.pretrain import main; main(); assert 'deepspeed' not in sys.modules"


def plan(folder, data, *options, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "--data", data, "--plan-data", *map(str, options)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,  # a run would take longer
    )


@pytest.mark.parametrize(
    ("written", "options", "batch_size"), [({}, (), 16), ({"train_batch_size": 24}, (), 24), ({}, (40,), 40)]
)
def test_steps_and_batch_size_are_those_of_the_run(tmp_path, small_corpus, written, options, batch_size):
    config = tmp_path / "deepspeed.json"
    config.write_text(json.dumps(written))
    more = ("--batch-size", *options) if options else ()
    done = plan(tmp_path, small_corpus, "--steps", 300, "--deepspeed_config", config, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == (f"300 steps of {batch_size} samples: {300 * batch_size:,} samples")
    assert done.stdout.splitlines()[-1].split()[0] in ("monolingual", "pairs")
    assert [path.name for path in tmp_path.iterdir()] == ["deepspeed.json"], "no run has begun"


def test_only_the_first_process_prints(tmp_path, small_corpus):
    config = ROOT / "ds_configs" / "zero2.json"
    options = ("--deepspeed_config", config)
    assert plan(tmp_path, small_corpus, *options, RANK="0").stdout
    assert plan(tmp_path, small_corpus, *options, RANK="1").stdout == ""
