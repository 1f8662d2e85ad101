"""A run that is asked to stop: all ranks save at the same step, leave with 85, and lose nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from command_runs import finetune, losses, options, pretrain, records, tuning_options
from distributed import run_distributed
from made_tasks import write_task

STEPS = 6
STAGES = (0, 1, 2, 3)
HEARD = 1.5  # seconds after which a rank's thread has heard of a signal


def pretrain_and_stop(cases, place):
    """`pretrain`, where rank 1 gets a signal at a place of its first case's run; see `PLACES`."""
    PLACES[place]()
    return pretrain(cases)


def finetune_and_stop(cases):
    from deltalm_ds.training import task_validation

    at_call(task_validation.TextGenerator, "generate", 2)
    return finetune(cases)


def at_call(owner, name, number):
    """Send SIGUSR1 to rank 1 at a call of `owner.name`, and then go on."""
    original, calls = getattr(owner, name), 0

    def replacement(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == number:
            if os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(HEARD)
        return original(*arguments, **named)

    setattr(owner, name, replacement)


def in_a_micro_batch():
    from deltalm_ds.training.engine import Engine

    at_call(Engine, "step", 4)  # it is looked at again between the step's two micro-batches


def in_validation():
    from deltalm_ds.training.validation import Validator

    at_call(Validator, "_add", 2)


def in_data_wait():
    """Rank 0 gets no data for its fourth step until it is asked to stop, of which it hears from rank 1."""
    from deltalm_ds.data.loader import StepLoader

    original, calls = StepLoader.wait, 0

    def never_ready(loader, seconds):
        nonlocal calls
        calls += 1
        if calls < 4:
            return original(loader, seconds)
        if int(os.environ["RANK"]) == 0:
            time.sleep(0.05)
            return False
        if calls == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        return original(loader, seconds)

    StepLoader.wait = never_ready


def in_a_save():
    from deltalm_ds.training.checkpoints import CheckpointStore

    at_call(CheckpointStore, "write", 1)


def at_the_start():
    from deltalm_ds.training.engine import Engine

    at_call(Engine, "__init__", 1)


PLACES = {
    "micro-batch": in_a_micro_batch,
    "validation": in_validation,
    "data wait": in_data_wait,
    "save": in_a_save,
    "start": at_the_start,
}


def stage_json(folder, stage):
    path = folder / f"zero{stage}.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return path


def arguments(corpus, output, stage, **changes):
    config = stage_json(output.parent, stage)
    changes = {"micro-batch-size": 2, "validate-every": 2, "save-every": 4, "keep-checkpoints": 9, **changes}
    return [*options(corpus, output, **changes), "--deepspeed_config", str(config)]


def run(cases, function=pretrain, num_processes=2, **more):
    ranks = run_distributed(function, num_processes, cases=cases, **more)
    assert all([code for code, _ in rank.value] == [code for code, _ in ranks[0].value] for rank in ranks)
    return ranks[0].value


def results(output):
    numbers = [
        {
            name: value
            for name, value in record.items()
            if name in ("samples", "gradient_norm") or name.startswith(("loss", "nll", "text"))
        }
        for kind in ("train", "validation")
        for record in records(output, kind)
    ]
    return numbers, (output / "model" / "model.safetensors").read_bytes()[-4000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_corpus):
    """What uninterrupted runs of each stage record, and the end of their weights."""
    folder = tmp_path_factory.mktemp("undisturbed")
    outputs = {stage: folder / f"zero{stage}" for stage in STAGES}
    cases = [arguments(small_corpus, output, stage) for stage, output in outputs.items()]
    for code, said in run(cases):
        assert code == 0, said
    return {stage: results(output) for stage, output in outputs.items()}


def stopped(tmp_path, corpus, place, stage):
    """Stop a run, look at how it ended, and let a new process finish it."""
    output = tmp_path / "run"
    case = arguments(corpus, output, stage)
    ((code, said),) = run([case], pretrain_and_stop, place=place)
    assert code == 85, said
    assert "asked to stop by SIGUSR1 on rank 1" in said
    ((code, again),) = run([[*case, "--resume"]])
    assert code == 0, again
    return said, again, results(output)


@pytest.mark.parametrize("stage", STAGES)
def test_between_micro_batches(tmp_path, small_corpus, undisturbed, stage) -> None:
    said, again, found = stopped(tmp_path, small_corpus, "micro-batch", stage)
    assert "stopped after step 3" in said  # the gradient of half a step is thrown away
    assert "resuming after step 3" in again
    assert found == undisturbed[stage]


@pytest.mark.parametrize(("place", "step"), [("validation", 2), ("data wait", 3), ("save", 4), ("start", 0)])
def test_elsewhere(tmp_path, small_corpus, undisturbed, place, step) -> None:
    said, again, found = stopped(tmp_path, small_corpus, place, 2)
    assert f"stopped after step {step};" in said
    assert f"resuming after step {step}," in again
    assert found == undisturbed[2]


def test_while_outputs_are_searched_for(tmp_path) -> None:
    data = write_task("translation", tmp_path / "data")
    case = tuning_options(data, tmp_path / "run")
    ((code, said),) = run([case], finetune_and_stop)
    assert code == 85, said
    assert "stopped after step 6;" in said  # in the last validation: the run has no model yet
    assert [record["step"] for record in records(tmp_path / "run", "validation")] == [3]
    assert not (tmp_path / "run" / "model").exists()
    ((code, said),) = run([[*case, "--resume"]], finetune)
    assert code == 0, said
    assert [record["step"] for record in records(tmp_path / "run", "validation")] == [3, 6]
    assert (tmp_path / "run" / "model").is_dir()


def test_files(tmp_path, small_corpus) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "stop").touch()
    case = arguments(small_corpus, output, 1)
    ((code, said),) = run([case], num_processes=1)
    assert code == 2
    assert f"{output / 'stop'} asks runs in this folder to stop: remove it to go on" in said
    (output / "stop").unlink()
    ((code, said),) = run([case], with_files, num_processes=1, output=str(output))
    assert code == 85, said
    assert [folder.name for folder in sorted((output / "checkpoints").glob("step_*"))] == ["step_1", "step_2"]
    assert not (output / "save").exists()
    assert f"asked to stop by the file {output / 'stop'}" in said


def with_files(cases, output):
    """A run that gets the file `save` before its first step and `stop` before its third."""
    from deltalm_ds.training.trainer import Trainer

    original = Trainer._get_ready

    def get_ready(trainer):
        for step, name in ((0, "save"), (2, "stop")):
            if trainer.progress.step == step:
                (Path(output) / name).touch()
                time.sleep(HEARD + 1)
        return original(trainer)

    Trainer._get_ready = get_ready
    return pretrain(cases)


def test_resume_if_begun(tmp_path, small_corpus, undisturbed) -> None:
    output = tmp_path / "run"
    case = [*arguments(small_corpus, output, 2), "--resume-if-begun"]
    (output / "checkpoints").mkdir(parents=True)
    # Killed before its first checkpoint: the record of that is dropped.
    (output / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 99.0}\n')
    (first, said), (code, again) = run([[*case, "--stop-after", "3"], case])
    assert (first, code) == (0, 0), said + again
    assert "resuming" not in said
    assert "resuming after step 3" in again
    assert results(output) == undisturbed[2]
    assert len(losses(output)) == STEPS
