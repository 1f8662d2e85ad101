"""A standard decoder through the command: new, from an encoder, stopped and resumed, refused."""

import json

import pytest
import torch
from command_runs import losses, options, pretrain
from distributed import run_distributed

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.model import DeltaLM, MaskedEncoder
from deltalm_ds.model.masked_encoder import encoder_config
from deltalm_ds.weights import save_encoder

STANDARD = ["--decoder", "standard"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_corpus):
    """All runs' folders and what the command said of each."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = Corpus.open(small_corpus)
    torch.manual_seed(1)
    encoder = MaskedEncoder(encoder_config("tiny", corpus.vocabulary.mask_id))
    save_encoder(encoder.config, encoder.state_dict(), corpus.tokenizer_path, folder / "encoder")

    def run(name, *more):
        return [*options(small_corpus, folder / name, steps=2), *map(str, more)]

    start = [*STANDARD, "--from", folder / "encoder"]
    cases = {
        "whole": run("whole", *STANDARD, "--checkpoint-every-n-layers", 2),
        "stopped": run("stopped", *STANDARD, "--stop-after", 1),
        "resumed": run("stopped", "--resume"),
        "as interleaved": run("whole", "--decoder", "interleaved", "--resume"),
        "random": run("random", *start),
        "copied": run("copied", *start, "--cross-attention-start", "copied"),
        "from itself": run("from-itself", "--from", folder / "whole" / "model"),
        "no start": run("bad", *start[:2], "--cross-attention-start", "copied"),
        "start of ours": run(
            "bad", *STANDARD, "--from", folder / "whole" / "model", "--cross-attention-start", "copied"
        ),
        "encoder": run("bad", *STANDARD, "--monolingual-objective", "mlm", "--pair-objective", "tlm"),
        "small": run("bad", *STANDARD, "--preset", "small"),
    }
    (outcome,) = run_distributed(pretrain, 1, cases=list(cases.values()))
    return folder, dict(zip(cases, outcome.value, strict=True))


def test_every_run_ends_with_a_standard_model(runs):
    folder, said = runs
    for case, output in (
        ("whole", "whole"),
        ("resumed", "stopped"),
        ("random", "random"),
        ("copied", "copied"),
        ("from itself", "from-itself"),
    ):
        code, text = said[case]
        assert code == 0, text
        model = DeltaLM.from_pretrained(folder / output / "model")
        assert (model.config.decoder, len(model.decoder.blocks)) == ("standard", 3)
    assert "new: cross-attention of every decoder layer" in said["random"][1]
    assert "cross_attention <- roberta.encoder.layer.{0..2}.attention" in said["copied"][1]


def test_a_resumed_run_goes_on_as_if_never_stopped(runs):
    folder, said = runs
    assert "resuming after step 1" in said["resumed"][1]
    assert losses(folder / "stopped") == losses(folder / "whole")
    settings = json.loads((folder / "whole" / "settings.json").read_text())
    assert settings["decoder"] == "standard"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("as interleaved", 'decoder is "standard" there, "interleaved" here'),
        ("no start", "--cross-attention-start is for --decoder standard with --from"),
        ("start of ours", "leave the start of cross-attention out"),
        ("encoder", "mlm and tlm train an encoder by itself: leave --decoder out"),
        ("small", "num_decoder_blocks is 3; take an even number (all presets but small have one)"),
    ],
)
def test_what_cannot_be_is_one_line(runs, case, message):
    code, text = runs[1][case]
    assert code == 2, text
    assert message in text.splitlines()[-1]
    assert not (runs[0] / "bad").exists()
