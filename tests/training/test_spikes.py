"""Harmful steps: found by their loss, skipped, named, and the samples left out of a run that went back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from command_runs import losses, options, pretrain, records
from distributed import let_deepspeed_run_fp16, run_distributed

from deltalm_ds.errors import UserError
from deltalm_ds.training.export_checkpoint import read_checkpoint
from deltalm_ds.training.spike_settings import SpikeSettings
from deltalm_ds.training.spikes import LossWindow


def test_the_limit_is_so_many_deviations_above_the_mean_of_the_window() -> None:
    window = LossWindow(SpikeSettings(spike_sigmas=3.0, spike_window=4))
    for loss in (9.0, 1.0, 3.0, 1.0):
        assert window.limit == math.inf
        window.add(loss)
    window.add(3.0)
    assert window.limit == 2.0 + 3.0 * 1.0
    again = LossWindow(SpikeSettings(spike_sigmas=3.0, spike_window=4))
    again.load_state(window.to_state())
    assert again.limit == window.limit


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spike_sigmas": 0.0}, "--spike-sigmas must be above 0, not 0.0"),
        ({"spike_window": 1}, "--spike-window must be at least 2, not 1"),
        ({"max_skipped_steps": 0}, "--max-skipped-steps must be at least 1, not 0"),
    ],
)
def test_impossible_settings(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SpikeSettings(**values)


def pretrain_with_harm(cases, harm):
    """`pretrain`, where the losses of rank 1 go wrong at the third step (from the third on: "for ever")."""
    from deltalm_ds.training.engine import Engine
    from deltalm_ds.training.trainer import Trainer

    let_deepspeed_run_fp16()
    forward, run_step = Engine.forward, Trainer._run_step
    where = {}

    def watched(trainer, batches):
        where["rank"], where["step"] = trainer.process.rank, trainer.progress.step + 1
        try:
            return run_step(trainer, batches)
        finally:
            where["step"] = 0

    def harmed(engine, *arguments, **named):
        sums = forward(engine, *arguments, **named)
        is_time = where["step"] >= 3 if harm == "for ever" else where["step"] == 3
        if where["rank"] == 1 and is_time:
            sums = sums._replace(loss=sums.loss * (100.0 if harm == "spike" else math.nan))
        return sums

    Engine.forward, Trainer._run_step = harmed, watched
    return pretrain(cases)


def run(cases, harm=None, **more):
    function, arguments = (pretrain, {}) if harm is None else (pretrain_with_harm, {"harm": harm})
    return run_distributed(function, 2, cases=cases, **arguments, **more)[0].value


def arguments(corpus, output, stage=1, **changes):
    config = output.parent / f"zero{stage}.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    changes = {"micro-batch-size": 2, "save-every": 1, "keep-checkpoints": 9, "spike-window": 2, **changes}
    return [*options(corpus, output, **changes), "--deepspeed_config", str(config), "--skip-spikes"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_spike_makes_no_update(tmp_path, small_corpus, stage) -> None:
    output = tmp_path / "run"
    ((code, said),) = run([arguments(small_corpus, output, stage)], "spike")
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if line.startswith("step 3 skipped")]
    assert " above " in line
    assert "(samples 16:24); rank 1 has a loss of" in line
    last = records(output, "train")[-1]
    assert (last["skipped_steps"], last["spikes"]) == (1, 1)
    before, after, later = (
        read_checkpoint(output / "checkpoints" / f"step_{step}").weights for step in (2, 3, 4)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(torch.equal(before[name], later[name]) for name in before)
    found = losses(output)
    assert len(found) == 6
    assert all(math.isfinite(loss) for loss in found)
    assert found[5] < found[0]


def test_a_skipped_spike_leaves_the_loss_scale_of_fp16(tmp_path, small_corpus) -> None:
    output = tmp_path / "run"
    case = arguments(small_corpus, output, 2)
    fp16 = {"enabled": True, "initial_scale_power": 4, "loss_scale_window": 1000, "hysteresis": 1}
    config = tmp_path / "zero2.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "fp16": fp16}))
    ((code, said),) = run([case], "spike")
    assert code == 0, said
    trained = records(output, "train")
    assert trained[-1]["skipped_steps"] == 1
    assert {record["loss_scale"] for record in trained} == {16.0}


def test_a_spike_is_only_told_where_it_is_not_to_be_skipped(tmp_path, small_corpus) -> None:
    output = tmp_path / "run"
    case = [each for each in arguments(small_corpus, output) if each != "--skip-spikes"]
    ((code, said),) = run([case], "spike")
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if line.startswith("step 3:")]
    assert "rank 1 has a loss of" in line
    last = records(output, "train")[-1]
    assert (last["skipped_steps"], last["spikes"]) == (0, 1)


def test_a_loss_that_is_not_a_number_names_its_rank_and_ends_the_run_when_it_stays(
    tmp_path, small_corpus
) -> None:
    case = arguments(small_corpus, tmp_path / "run", **{"max-skipped-steps": 3})
    ((code, said),) = run([case], "for ever")
    assert code == 2, said
    for step in (3, 4, 5):
        first = 8 * (step - 1)
        assert (
            f"step {step} skipped: no finite gradient (samples {first}:{first + 8}); "
            "rank 1 has a loss that is not finite on samples" in said
        )
    assert said.splitlines()[-1].startswith(
        "deltalm-ds pretrain: error: 3 steps in a row were skipped, the last being step 5: lower the"
    )
    assert (tmp_path / "run" / "checkpoints" / "step_4").is_dir()


def test_going_back_and_leaving_samples_out(tmp_path, small_corpus) -> None:
    output = tmp_path / "run"
    case = arguments(small_corpus, output, steps=5)
    again = [*case, "--resume", "--skip-samples", "18:21"]
    (*_, (_, said), (_, once_more)) = results = run(
        [[*case, "--stop-after", "4"], [*again, "--stop-after", "1"], again]
    )
    assert [code for code, _ in results] == [0, 0, 0], said + once_more
    assert "going back behind step_4, which is kept as step_4.undone" in said
    assert "going back behind step_3, which is kept as step_3.undone" in said
    assert "resuming after step 2, at sample 16" in said
    assert "going back" not in once_more  # it was done
    assert "resuming after step 3, at sample 29" in once_more  # a whole batch from sample 21
    assert [record["samples"] for record in records(output, "train")] == [8, 16, 29, 37, 45]
    kept = sorted(folder.name for folder in (output / "checkpoints").glob("step_*"))
    assert kept == ["step_1", "step_2", "step_3", "step_3.undone", "step_4", "step_4.undone", "step_5"]


def test_mistakes(tmp_path, small_corpus) -> None:
    output = tmp_path / "run"
    case = arguments(small_corpus, output, steps=2, **{"keep-checkpoints": 1})
    (*_, (wrong, said), (code, too_early)) = run(
        [
            case,
            [*case, "--resume", "--skip-samples", "5:5"],
            [*case, "--resume", "--skip-samples", "0:5"],
        ]
    )
    assert (wrong, code) == (2, 2)
    assert "--skip-samples takes FIRST:END with FIRST below END, not '5:5'" in said
    assert "there is none from before the samples to be skipped (step_2 is later)" in too_early
    assert (output / "checkpoints" / "step_2").is_dir()
