"""Every objective through the command: an encoder of one's own, a DeltaLM from it, resuming, refusals."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_runs import losses, options, pretrain, records
from distributed import run_distributed
from transformers import XLMRobertaForMaskedLM

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.samples import ValidationReader
from deltalm_ds.data.settings import DataSettings

ENCODER = ["--monolingual-objective", "mlm", "--pair-objective", "tlm"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_corpus):
    """All runs' folders and what the command said of each."""
    folder = tmp_path_factory.mktemp("runs")
    encoder, resumed = folder / "encoder", folder / "resumed"
    whole, stopped = options(small_corpus, encoder, steps=40), options(small_corpus, resumed, steps=40)
    start = ["--from", str(encoder / "model")]

    def deltalm(name, *more, **changes):
        return [*options(small_corpus, folder / name, **changes), *more]

    cases = {
        "encoder": [*whole, *ENCODER],
        "stopped": [*stopped, *ENCODER, "--stop-after", "15"],
        "resumed": [*stopped, *ENCODER, "--resume"],
        "translation": deltalm("translation", *start, "--pair-objective", "translation"),
        "one-side": deltalm("one-side", *start, "--pair-objective", "one-side"),
        "t5": deltalm("t5", "--pair-objective", "one-side", "--corruption-form", "t5"),
        "mlm alone": deltalm("bad", "--monolingual-objective", "mlm"),
        "encoder from": deltalm("bad", *ENCODER, *start),
        "pre-LN": deltalm("bad", *ENCODER, "--layer-norm", "pre"),
        "other pairs": deltalm("one-side", "--pair-objective", "translation", "--resume", steps=9),
        "other kind": deltalm("encoder", "--resume", steps=50),
        "other kind too": deltalm("translation", *ENCODER, "--resume", steps=50),
    }
    (outcome,) = run_distributed(pretrain, 1, cases=list(cases.values()))
    return folder, dict(zip(cases, outcome.value, strict=True))


def test_an_encoder_learns_and_is_shown_at_work(runs):
    folder, said = runs
    code, text = said["encoder"]
    assert code == 0, text
    by_step = losses(folder / "encoder")
    assert len(by_step) == 40
    assert np.mean(by_step[-5:]) < np.mean(by_step[:5]) - 0.4
    (validation,) = records(folder / "encoder", "validation")
    for name in ("mlm", "tlm"):
        assert validation[f"loss/{name}"] == validation[f"text/{name}"]
        assert validation[f"unigram_entropy/{name}"] > 0
    assert not any("other_source" in name or "same_language" in name for name in validation)
    assert "\n[mlm, de] " in text
    assert text.count(" → ") > 5
    assert "model: new runs start from it by --from" in text


def test_a_resumed_encoder_goes_on_as_if_never_stopped(runs):
    folder, said = runs
    assert [said[name][0] for name in ("stopped", "resumed")] == [0, 0], said["resumed"][1]
    assert "resuming after step 15" in said["resumed"][1]
    assert losses(folder / "resumed") == losses(folder / "encoder")


def test_transformers_gets_the_loss_of_the_validation(runs, small_corpus):
    folder, _ = runs
    model = XLMRobertaForMaskedLM.from_pretrained(folder / "encoder" / "model").eval()
    settings = DataSettings(
        max_source_length=48, max_target_length=48, monolingual_objective="mlm", pair_objective="tlm"
    )
    total, count = 0.0, 0
    for sample in ValidationReader(Corpus.open(small_corpus), settings, 6).samples():
        if not len(sample.example.labels):
            continue  # an empty row of pairs
        source, places, labels = (torch.from_numpy(part).long() for part in sample.example)
        with torch.no_grad():
            logits = model(source[None]).logits[0, places]
        total += F.cross_entropy(logits.double(), labels, reduction="sum").item()
        count += len(labels)
    (validation,) = records(folder / "encoder", "validation")
    assert validation["loss"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("name", ["translation", "one-side", "t5"])
def test_a_deltalm_trains_by_every_pair_objective(runs, name):
    folder, said = runs
    code, text = said[name]
    assert code == 0, text
    objective = "translation" if name == "translation" else "one_side"
    assert ("left out: lm_head.bias" in text) == (name != "t5")
    train = records(folder / name, "train")
    assert train[-1]["loss"] < train[0]["loss"]
    (validation,) = records(folder / name, "validation")
    assert validation[f"text_with_other_source/{objective}"] > 0
    assert f"\n[{objective}, de-en] " in text
    assert json.loads((folder / name / "model" / "config.json").read_text())["format"] == "deltalm-ds model"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("mlm alone", "choose mlm with tlm, or neither"),
        ("encoder from", "from new weights: leave --from out"),
        ("pre-LN", "use --layer-norm post"),
        ("other pairs", 'objectives.pairs is "one-side" there, "translation" here'),
        ("other kind", 'objectives.monolingual is "mlm" there, "span-corruption" here'),
        ("other kind too", 'objectives.pairs is "translation" there, "tlm" here'),
    ],
)
def test_what_cannot_be_is_one_line(runs, case, message):
    code, text = runs[1][case]
    assert code == 2, text
    assert message in text.splitlines()[-1]
    assert not (runs[0] / "bad").exists()


def test_ranks_share_an_encoder_under_zero_3(tmp_path, small_corpus):
    """Three samples for two processes of two micro-batches each: one of them gets nothing."""
    config = tmp_path / "zero3.json"
    zero = {"stage": 3, "stage3_param_persistence_threshold": 100}
    config.write_text(
        json.dumps(
            {
                "train_micro_batch_size_per_gpu": "auto",
                "zero_optimization": zero,
                "bf16": {"enabled": False},
            }
        )
    )
    for world_size in (1, 2):
        arguments = options(
            small_corpus,
            tmp_path / str(world_size),
            **{"steps": 4, "batch-size": 3, "micro-batch-size": 1, "deepspeed_config": config},
        )
        outcomes = run_distributed(
            pretrain, world_size, cases=[[*arguments, *ENCODER, "--checkpoint-every-n-layers", "2"]]
        )
        assert [outcome.value[0][0] for outcome in outcomes] == [0] * world_size, outcomes[0].value[0][1]
    alone, shared = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert shared == pytest.approx(alone, rel=1e-5)
    (one,), (two,) = (records(tmp_path / name, "validation") for name in ("1", "2"))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
