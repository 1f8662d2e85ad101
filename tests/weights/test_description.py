"""Model folders that say everything of themselves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM
from deltalm_ds.text.tokenizer import train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights import Description, TaskDescription, load_pretrained, read_description, save_own

TASK = TaskDescription(
    name="translation",
    directions=(("en", "fr"), ("en", "zh-Hant")),
    tags={"fr": 70, "zh-Hant": 71},
    max_source_length=16,
    max_target_length=12,
    search={"beam": 5, "length_penalty": 1.0},
    metric="bleu",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "any.model"
    lines = ["nosa teki lumo bane", "teki tado nosa bane loki", "fumi gari teba lode"]
    path.write_bytes(train_tokenizer(lines * 20, 24, 1.0))
    return path


@pytest.fixture
def folder(model: DeltaLM, tokenizer: Path, tmp_path: Path) -> Path:
    description = Description(
        tokenizer=tokenizer,
        vocabulary=Vocabulary(24, num_sentinels=7, num_tags=2),
        languages=("en", "fr", "zh-Hant"),
        task=TASK,
        training={"steps": 3},
    )
    save_own(model, tmp_path / "model", description)
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


def test_everything_comes_back(folder: Path, tokenizer: Path) -> None:
    found = read_description(folder)
    assert found.task == TASK
    assert found.task.target_languages == ("fr", "zh-Hant")
    assert found.languages == ("en", "fr", "zh-Hant")
    assert found.training == {"steps": 3}
    assert found.vocabulary == Vocabulary(24, num_sentinels=7, num_tags=2)
    assert found.open_tokenizer().decode(found.open_tokenizer().encode("nosa teki")) == "nosa teki"
    assert found.tokenizer.read_bytes() == tokenizer.read_bytes()
    load_pretrained(folder)


def test_saving_again_where_the_tokenizer_is_already(model: DeltaLM, folder: Path) -> None:
    save_own(model, folder, dataclasses.replace(read_description(folder), training={"steps": 4}))
    assert read_description(folder).training == {"steps": 4}


def test_a_folder_without_tokenizer(model: DeltaLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"names no tokenizer.*convert --tokenizer"):
        read_description(tmp_path)
    with pytest.raises(UserError, match="is no model folder"):
        read_description(tmp_path / "nowhere")


def test_missing_or_changed_files(folder: Path) -> None:
    tokenizer, weights = folder / "sentencepiece.bpe.model", folder / "model.safetensors"
    content = tokenizer.read_bytes()
    tokenizer.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match=r"sentencepiece\.bpe\.model is not the tokenizer"):
        read_description(folder)
    tokenizer.unlink()
    with pytest.raises(UserError, match=r"sentencepiece\.bpe\.model is missing"):
        read_description(folder)
    tensors = bytearray(weights.read_bytes())
    tensors[-1] ^= 1
    weights.write_bytes(tensors)
    with pytest.raises(UserError, match=r"model\.safetensors is not the file.*save it again"):
        load_pretrained(folder)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors.*cannot be read"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["tokenizer"].pop("num_tags"), "num_tags"),
        (lambda content: content["tokenizer"].update(num_pieces="24"), "num_pieces is '24'"),
        (lambda content: content["tokenizer"].update(num_pieces=2), "num_pieces must be"),
        (lambda content: content["tokenizer"].update(file="../x"), r"not sentencepiece\.bpe\.model"),
        (lambda content: content["task"].update(colour=1), "colour"),
        (lambda content: content["task"].update(max_source_length=-1), "max_source_length is -1"),
        (lambda content: content["task"]["tags"].update(fr="70"), "tags is not ids"),
        (lambda content: content.update(languages="fr"), "languages is no list"),
        (lambda content: content.update(training=[]), "training is no object"),
    ],
)
def test_a_description_that_cannot_be_used(
    change: Callable[[dict], object], message: str, folder: Path
) -> None:
    edit(folder, change)
    with pytest.raises(UserError, match=f"config.json is not usable .*{message}"):
        read_description(folder)
