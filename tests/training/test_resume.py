"""Runs that are killed and resumed, by the real command, against runs that nobody disturbed."""

import json
import re
import sys
import time
from pathlib import Path

import pytest
from distributed import DistributedRun

from deltalm_ds.training.monitor import read_metrics

TIMEOUT = 240


def pretrain(arguments, slow_write_marker=None):
    """The command, in a process that the test starts; optionally its first save never ends."""
    from deltalm_ds import pretrain as command
    from deltalm_ds.training import checkpoints

    if slow_write_marker is not None:

        def hang(store, snapshot):
            name = next(iter(snapshot.files))
            (store._aside(snapshot.state) / name).write_bytes(b"cut off")
            Path(slow_write_marker).touch()
            time.sleep(TIMEOUT)

        checkpoints.CheckpointStore.write = hang
    sys.argv[1:] = arguments
    command.main()


def configuration(folder, dtype):
    path = folder / f"{dtype}.json"
    path.write_text(
        json.dumps(
            {
                "train_batch_size": 7,  # shares of 2 processes x 2 micro-batches are uneven
                "train_micro_batch_size_per_gpu": "auto",
                "zero_optimization": {"stage": 2},
                "bf16": {"enabled": dtype == "bf16"},
            }
        )
    )
    return path


class Run:
    """One run's folder and the arguments of all its processes."""

    def __init__(self, output, corpus, dtype, num_loader_workers):
        self.output = output
        self.num_loader_workers = num_loader_workers
        output.mkdir()
        self.arguments = [
            *("--data", corpus, "--output", output, "--deepspeed_config", configuration(output, dtype)),
            *("--micro-batch-size", 2, "--max-source-length", 48, "--max-target-length", 48),
            *("--steps", 400, "--warmup-steps", 100, "--learning-rate", 0.003, "--dropout", 0.1),
            *("--log-every", 1, "--validate-every", 0, "--validation-samples", 2, "--text-samples", 1),
            *("--save-every", 4, "--seed", 11),
        ]

    def start(self, num_processes, stop_after, **arguments):
        more = ("--stop-after", stop_after, "--num-loader-workers", self.num_loader_workers)
        command = [str(part) for part in (*self.arguments, *more)]
        if (self.output / "checkpoints").exists():
            command.append("--resume")
        return DistributedRun(pretrain, num_processes, {"arguments": command, **arguments})

    def run(self, num_processes, stop_after):
        outcomes = self.start(num_processes, stop_after).wait(TIMEOUT)
        assert [outcome.returncode for outcome in outcomes] == [0] * num_processes, outcomes[0].stderr
        return outcomes[0].stderr

    def kill_when(self, num_processes, stop_after, happened, **arguments):
        """Start, and kill -9 every process as soon as `happened()`."""
        processes = self.start(num_processes, stop_after, **arguments)
        end = time.monotonic() + TIMEOUT
        while not happened():
            assert time.monotonic() < end
            assert all(process.exitcode is None for process in processes.processes)
            time.sleep(0.01)
        processes.kill()
        processes.wait(TIMEOUT)

    def losses(self):
        """Every number of every training record that is not a speed, by step."""
        names = ("loss", "gradient_norm", "samples", "learning_rate")
        return {
            record["step"]: {
                name: value for name, value in record.items() if name in names or name.startswith("nll")
            }
            for record in read_metrics(self.output)
            if record["kind"] == "train"
        }

    def saved(self, step):
        return self.output / "checkpoints" / f"step_{step}"

    def last_step(self):
        steps = self.losses() if (self.output / "metrics.jsonl").exists() else {}
        return max(steps, default=0)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_killed_at_an_arbitrary_step_and_during_a_save_then_with_other_numbers_of_processes(
    tmp_path, small_corpus, dtype
):
    num_steps = {"bf16": 10, "fp32": 50}[dtype]
    undisturbed = Run(tmp_path / "undisturbed", small_corpus, dtype, 0)
    undisturbed.run(2, num_steps)
    expected = undisturbed.losses()
    assert list(expected) == list(range(1, num_steps + 1))

    run = Run(tmp_path / "run", small_corpus, dtype, 2)
    run.kill_when(2, 10, lambda: run.last_step() >= 6 and run.saved(4).is_dir())
    saving = tmp_path / "saving"
    run.kill_when(2, 10, saving.exists, slow_write_marker=str(saving))
    assert not run.saved(8).exists()
    said = run.run(2, 6)
    assert re.search(r"removing step_8\.\S+\.tmp, left by an interrupted save", said)
    assert "resuming after step 4" in said
    assert run.losses() == {step: values for step, values in expected.items() if step <= 10}

    if dtype == "fp32":
        run.num_loader_workers = 0  # quicker to start
        assert "converting step_10" in run.run(1, 20)
        assert "converting step_30" in run.run(2, 20)
        losses = run.losses()
        assert losses.keys() == expected.keys()
        for step, values in expected.items():
            assert losses[step]["loss"] == pytest.approx(values["loss"], rel=1e-5), step
            assert losses[step]["samples"] == values["samples"]
