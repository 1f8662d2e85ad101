"""What goes wrong in a run ends or goes on as promised, with the reason in one line."""

from __future__ import annotations

import json
import os
import re
import sys
import time

import pytest
from command_runs import losses, options, pretrain
from distributed import run_distributed

LIMITS = ("--watchdog-step-factor", "3", "--watchdog-least-seconds", "3")


def arguments(corpus, output, **changes):
    config = output.parent / "zero1.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    changes = {"micro-batch-size": 2, "save-every": 2, "keep-checkpoints": 9, **changes}
    return [*options(corpus, output, **changes), "--deepspeed_config", str(config), *LIMITS]


def hang(cases):
    """`pretrain`, where rank 1 does not come back from its fifth step's forward pass."""
    return _with_fault(cases, lambda: time.sleep(600))


def fail(cases):
    """`pretrain`, where rank 1 raises there."""

    def raise_error():
        raise RuntimeError("device-side assert")

    return _with_fault(cases, raise_error)


def _with_fault(cases, fault):
    from deltalm_ds.pretrain import main
    from deltalm_ds.training.trainer import Trainer

    original = Trainer._run_step

    def run_step(trainer, batches):
        if trainer.progress.step == 4 and trainer.process.rank == 1:
            fault()
        return original(trainer, batches)

    Trainer._run_step = run_step
    (sys.argv[1:],) = cases
    main()  # with its own stderr, which lasts when the watchdog ends the process


def be_slower_than_a_save(cases):
    """`pretrain`, each of whose steps waits for longer than a save may take."""
    from deltalm_ds.training.engine import Engine

    original = Engine.step

    def step(*arguments, **named):
        time.sleep(4)
        return original(*arguments, **named)

    Engine.step = step
    return pretrain(cases)


def outcomes(function, case):
    return run_distributed(function, 2, cases=[case], expect_failure=True, timeout=120)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, small_corpus):
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    ((code, said),) = run_distributed(pretrain, 2, cases=[arguments(small_corpus, output)])[0].value
    assert code == 0, said
    return losses(output)


def resumed(case, num_processes=2):
    ((code, said),) = run_distributed(pretrain, num_processes, cases=[[*case, "--resume"]])[0].value
    assert code == 0, said
    return said


def test_a_rank_that_hangs_ends_the_job_to_be_run_again(tmp_path, small_corpus, undisturbed) -> None:
    output = tmp_path / "run"
    case = arguments(small_corpus, output)
    ended = outcomes(hang, case)
    assert [outcome.returncode for outcome in ended] == [85, 85]
    stacks = sorted(path.name for path in (output / "hang").iterdir())
    assert stacks == ["step_5-collectives", "step_5-rank_0.txt", "step_5-rank_1.txt", "step_5.txt"]
    assert "in run_step" in (output / "hang" / "step_5-rank_1.txt").read_text()
    said = "".join(outcome.stderr for outcome in ended).splitlines()  # by whichever rank raised the alarm
    (line,) = [line for line in said if line.startswith("hang: ")]
    assert line.startswith("hang: rank 1 on ")
    assert "in step 5" in line
    assert re.search(r"resuming after step [24]", resumed(case))  # 4 if it was committed in time
    assert losses(output) == undisturbed


def test_the_limit_of_a_save_ends_with_it(tmp_path, small_corpus) -> None:
    case = options(small_corpus, tmp_path / "run", steps=4, **{"save-every": 2, "watchdog-save-seconds": 2})
    (rank,) = run_distributed(be_slower_than_a_save, 1, cases=[case], expect_failure=True, timeout=120)
    assert rank.returncode == 0, rank.stderr[-2000:]


def test_a_rank_that_raises_ends_all(tmp_path, small_corpus, undisturbed) -> None:
    output = tmp_path / "run"
    case = arguments(small_corpus, output)
    ended = outcomes(fail, case)
    assert all(outcome.returncode for outcome in ended)
    assert "RuntimeError: device-side assert" in ended[1].stderr
    said = resumed(case)
    assert re.search(r"resuming after step [24]", said)
    assert losses(output) == undisturbed


@pytest.mark.parametrize("harm", ["corrupted", "cut off", "latest"])
def test_a_harmed_folder(tmp_path, small_corpus, undisturbed, harm) -> None:
    output = tmp_path / "run"
    case = arguments(small_corpus, output)
    ((code, said),) = run_distributed(pretrain, 2, cases=[[*case, "--stop-after", "4"]])[0].value
    assert code == 0, said
    shard = next((output / "checkpoints" / "step_4").glob("*optim_states.pt"))
    if harm == "latest":
        (output / "checkpoints" / "latest").write_text("step_77\n")
    elif harm == "corrupted":
        with shard.open("r+b") as file:
            file.seek(shard.stat().st_size // 2)
            file.write(b"\xff\x00\xff")
    else:
        os.truncate(shard, 1000)
    said = resumed(case)
    reason, step = {
        "corrupted": (f"step_4 passed over: {shard.name} differs from its hash in the manifest", 2),
        "cut off": (f"step_4 passed over: {shard.name} has 1,000 bytes, manifest says", 2),
        "latest": ("latest names 'step_77', which is not in", 4),
    }[harm]
    assert reason in said
    assert f"resuming after step {step}" in said
    assert losses(output) == undisturbed


def test_a_batch_that_the_number_of_processes_does_not_divide(tmp_path, small_corpus) -> None:
    """Elastic: 2, then 3, then 1 process, 7 samples a step: the same samples, losses and learning rate."""
    config = tmp_path / "zero2.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 2}, "train_batch_size": 7}))
    whole, output = tmp_path / "whole", tmp_path / "run"

    def case(folder, *more):
        given = options(small_corpus, folder, **{"micro-batch-size": 2})
        place = given.index("--batch-size")
        return [*given[:place], *given[place + 2 :], "--deepspeed_config", str(config), *more]

    ((code, said),) = run_distributed(pretrain, 1, cases=[case(whole)])[0].value
    assert code == 0, said
    for num_processes, more in ((2, ()), (3, ("--resume",)), (1, ("--resume",))):
        ended = run_distributed(pretrain, num_processes, cases=[case(output, "--stop-after", "2", *more)])
        ((code, said),) = ended[0].value
        assert code == 0, said
        if more:
            assert re.search(
                rf"converting step_\d from ZeRO 2 on \d processes for ZeRO 2 on {num_processes}", said
            )
    assert losses(output) == pytest.approx(losses(whole), rel=1e-5)
