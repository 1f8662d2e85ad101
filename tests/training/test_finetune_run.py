"""Fine-tuning through the command: the same trainer, the task's score, and what a run leaves behind."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from command_runs import finetune, losses, records, tuning_options
from distributed import run_distributed
from made_tasks import write_task
from safetensors.torch import load_file

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.scoring.metrics import build_metric
from deltalm_ds.training.checkpoint_folder import read_run_state
from deltalm_ds.training.export_checkpoint import read_checkpoint
from deltalm_ds.weights import load_pretrained, read_description

STAGES = ("0", "1", "2", "3")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_task("translation", tmp_path_factory.mktemp("made") / "data")


def deepspeed_json(folder, stage, dtype="fp32"):
    path = folder / f"zero{stage}-{dtype}.json"
    path.write_text(
        json.dumps({"zero_optimization": {"stage": int(stage)}, "bf16": {"enabled": dtype == "bf16"}})
    )
    return path


def run(cases, num_processes=1):
    results = run_distributed(finetune, num_processes, cases=cases)[0].value
    for code, said in results:
        assert code == 0, said
    return [said for _, said in results]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("whole") / "run"
    (said,) = run([tuning_options(data, output)])
    return output, said


def test_a_run_leaves_a_model_that_describes_itself(whole, data) -> None:
    output, said = whole
    description = read_description(output / "model")
    task = description.task
    assert task is not None
    assert (task.name, task.directions, list(task.tags)) == ("translation", (("en", "fr"),), ["fr"])
    assert (task.metric, task.search["beam"], task.max_source_length) == ("bleu", 5, 32)
    assert description.training["command"] == "finetune"
    assert f"tags      fr {task.tags['fr']}" in said
    assert "python -m deltalm_ds.generate" in said
    config = load_pretrained(output / "model").config
    assert config.vocabulary_rows == description.vocabulary.num_rows
    found = records(output, "validation")
    assert [record["step"] for record in found] == [3, 6]
    assert all({"loss", "bleu", "bleu/en-fr", "chrf"} <= record.keys() for record in found)
    best = max(found, key=lambda record: (record["bleu"], -record["step"]))["step"]
    kept = load_file(output / "best" / f"step_{best}" / "model.safetensors")
    for name, tensor in load_file(output / "model" / "model.safetensors").items():
        assert torch.equal(tensor, kept[name]), name
    assert (output / "best").is_dir()
    assert [path.name for path in (output / "best").iterdir()] == [f"step_{best}"]


def test_scores_are_those_of_the_commands_that_users_have(whole, data) -> None:
    found = records(whole[0], "validation")
    best = max(found, key=lambda record: (record["bleu"], -record["step"]))
    sources, references = ((data / f"valid.{name}").read_text().splitlines()[:4] for name in ("en", "fr"))
    done = subprocess.run(
        [sys.executable, "-m", "deltalm_ds.generate", whole[0] / "model"],
        input="".join(f"{source}\n" for source in sources),
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("bleu", "chrf"):
        score = build_metric(name, "fr").score(done.stdout.splitlines(), [[text] for text in references])
        assert best[name] == best[f"{name}/en-fr"] == pytest.approx(score.value, abs=1e-4)
    assert best["chrf"] > 1


def test_a_resumed_run_is_the_uninterrupted_one(whole, data, tmp_path) -> None:
    cut = tmp_path / "cut"
    said = run(
        [
            tuning_options(data, cut, **{"stop-after": 4}),
            [*tuning_options(data, cut), "--resume"],
        ]
    )
    assert "resuming after step 4" in said[1]
    assert losses(cut) == losses(whole[0])
    there, here = (records(output, "validation") for output in (whole[0], cut))
    for key in ("step", "loss", "bleu", "chrf"):
        assert [record[key] for record in here] == [record[key] for record in there], key
    weights = load_file(cut / "model" / "model.safetensors")
    for name, tensor in load_file(whole[0] / "model" / "model.safetensors").items():
        assert torch.equal(weights[name], tensor), name


def test_processes_and_stages_change_nothing(whole, data, tmp_path) -> None:
    cases = [
        tuning_options(data, tmp_path / stage, deepspeed_config=deepspeed_json(tmp_path, stage))
        for stage in STAGES
    ]
    run(cases, num_processes=2)
    for stage in STAGES:
        assert losses(tmp_path / stage) == pytest.approx(losses(whole[0]), abs=2e-5), stage
        found = records(tmp_path / stage, "validation")
        for record, expected in zip(found, records(whole[0], "validation"), strict=True):
            assert record["loss"] == pytest.approx(expected["loss"], abs=2e-5)
            assert record["bleu"] == pytest.approx(expected["bleu"], abs=1e-6), stage


@pytest.mark.parametrize(("stage", "dtype"), [("0", "fp32"), ("2", "bf16"), ("3", "fp32")])
def test_frozen_parameters_stay_bit_for_bit(whole, data, tmp_path, stage: str, dtype: str) -> None:
    given = tuning_options(
        data,
        tmp_path / "run",
        deepspeed_config=deepspeed_json(tmp_path, stage, dtype),
        metric="loss",  # which falls, so that the last model is the best
        **{"from": whole[0] / "model", "vocabulary-size": None},
    )
    patterns = ["--freeze", "embedding.*", "decoder.blocks.0.*"]
    run([[*given, *patterns, "--stop-after", "3"]])
    given = tuning_options(
        data,
        tmp_path / "run",
        deepspeed_config=deepspeed_json(tmp_path, stage, dtype),
        metric="loss",
        **{"vocabulary-size": None},
    )
    run([[*given, *patterns, "--resume"]])
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint.description is not None
    assert checkpoint.description.task is not None
    before, after = (
        load_file(folder / "model.safetensors") for folder in (whole[0] / "model", tmp_path / "run" / "model")
    )
    for name, tensor in before.items():
        is_frozen = name.startswith(("embedding.", "decoder.blocks.0."))
        assert torch.equal(tensor, after[name]) == is_frozen, name
        assert torch.equal(checkpoint.weights[name], after[name]), name


def test_new_directions_pieces_and_averages(whole, data, tmp_path) -> None:
    pieces = tmp_path / "pieces.txt"
    pieces.write_text("bateau\n\u2581boats\n", encoding="utf-8")
    given = tuning_options(
        data,
        tmp_path / "run",
        average=2,
        **{
            "from": whole[0] / "model",
            "vocabulary-size": None,
            "source-language": "fr",
            "new-pieces": pieces,
            "validate-every": 2,
        },
    )
    (said,) = run([given])
    task = read_description(tmp_path / "run" / "model").task
    assert task is not None
    old = read_description(whole[0] / "model")
    new = read_description(tmp_path / "run" / "model")
    assert (task.directions, list(task.tags)) == ((("fr", "en"),), ["fr", "en"])
    assert new.vocabulary.num_pieces == old.vocabulary.num_pieces + 2
    assert "tag of en: mean of" in said
    assert "piece bateau: mean of" in said
    assert new.open_tokenizer().encode("bateau") != old.open_tokenizer().encode("bateau")
    kept = [load_file(path / "model.safetensors") for path in (tmp_path / "run" / "best").iterdir()]
    assert len(kept) == 2
    averaged = load_file(tmp_path / "run" / "model" / "model.safetensors")
    for name, tensor in averaged.items():
        mean = (kept[0][name].double() + kept[1][name].double()) / 2
        assert torch.equal(tensor, mean.float()), name


def test_a_task_without_tags_drops_those_of_its_start(whole, tmp_path) -> None:
    headlines = write_task("summarization", tmp_path / "headlines")
    given = tuning_options(
        headlines,
        tmp_path / "run",
        task="summarization",
        **{"from": whole[0] / "model", "vocabulary-size": None, "source-language": "fr", "steps": 2},
    )
    run([given])
    description = read_description(tmp_path / "run" / "model")
    assert description.task is not None
    assert (dict(description.task.tags), description.vocabulary.num_tags) == ({}, 0)


def test_epochs_and_temperature(data, whole, tmp_path) -> None:
    """Of two directions one has a fourth of the other's examples: at T = 2 it is drawn half as often."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("train.en", "train.fr"):
        lines = (data / name).read_text().splitlines(keepends=True)[:16]
        (few / name.replace(".fr", ".de")).write_text("".join(lines))
    given = tuning_options(data, tmp_path / "run", epochs=2, temperature=2, steps=None)
    place = given.index(str(data))
    given[place : place + 1] = [str(data), str(few)]
    (said,) = run([[*given, "--validation-data", str(data)]])
    assert "--validation-data" in said
    tokens = Corpus.open(tmp_path / "run" / "data").sources("train")
    expected = math.ceil(2 * sum(source.num_tokens for source in tokens) / 600)
    assert losses(tmp_path / "run")[-1] > 0
    assert len(losses(tmp_path / "run")) == expected
    state = read_run_state(tmp_path / "run" / "checkpoints" / f"step_{expected}")
    quotas = {name: int(quota) for name, quota in state.fingerprint["mixture"].items()}
    assert sum(quotas.values()) == 80
    assert quotas["en-de"] == pytest.approx(80 / 3, abs=1)


def test_a_run_stops_when_its_score_no_longer_rises(data, tmp_path) -> None:
    given = tuning_options(data, tmp_path / "run", patience=2, **{"learning-rate": 1e-9, "validate-every": 1})
    (said,) = run([given])
    assert "stopping: bleu has not improved in 2 validations" in said
    assert [record["step"] for record in records(tmp_path / "run", "validation")] == [1, 2, 3]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_mistakes_are_one_line(whole, data, tmp_path) -> None:
    output, _ = whole
    uneven = tmp_path / "uneven"
    uneven.mkdir()
    (uneven / "train.en").write_text("one\ntwo\n")
    (uneven / "train.fr").write_text("un\n")
    bare = tmp_path / "bare"
    (bare).mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((output / "model" / name).read_bytes())
    content = json.loads((bare / "config.json").read_text())
    for key in ("tokenizer", "task", "training", "languages"):
        del content[key]
    (bare / "config.json").write_text(json.dumps(content))
    (tmp_path / "rows.train.jsonl").write_text('{"text": "one", "lang": "fr"}\n')
    other = tmp_path / "other"
    cases = {
        "there is no task 'translate' (did you mean translation?)": {"task": "translate"},
        "'blue' is no metric: name one of": {"metric": "blue"},
        "meteor cannot be computed here: it needs": {"metric": "meteor"},
        "holds a run: go on with it by --resume": {"output": output},
        "--freeze nowhere.* names no parameter": {"freeze": "nowhere.*"},
        "--freeze leaves nothing to train": {"freeze": "*"},
        "has no tokenizer beside it: give its SentencePiece file": {"from": bare, "vocabulary-size": None},
        "the model has 512 positions": {"max-source-length": 600},
        "does not exist": {"data": tmp_path / "nowhere"},
        "train.en": {"data": uneven},
        "--steps and --epochs both": {"epochs": 2},
        "is no language": {"source-language": "english"},
        "has no field 'source'": {"task": "summarization", "data": tmp_path / "rows.train.jsonl"},
    }
    arguments = [
        tuning_options(**{"data": data, "output": other / str(number), **changes})
        for number, changes in enumerate(cases.values())
    ]
    results = run_distributed(finetune, 1, cases=arguments)[0].value
    for (code, said), message in zip(results, cases, strict=True):
        errors = [line for line in said.splitlines() if "error:" in line]
        assert code == 2, (message, said)
        assert len(errors) == 1, said
        assert message in errors[0]
        assert "Traceback" not in said
