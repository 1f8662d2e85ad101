"""The trim command's work, from a model folder to a smaller one."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trim_samples import LINES, TOKENIZER, write_model

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM
from deltalm_ds.trimming import run as trimming_run
from deltalm_ds.trimming.run import TrimSettings, trim
from deltalm_ds.weights import Description, load_pretrained, read_description

TEXT = LINES[:12]


def trimmed(folder: Path, is_tuned: bool = True, **options: object) -> tuple[Path, list[str]]:
    """The new folder and what was said, with the text in two files."""
    model = write_model(folder / "model", is_tuned)
    (folder / "text.txt").write_text("\n".join(TEXT[:6]) + "\n\n")
    (folder / "more.gz").write_bytes(gzip.compress("\n".join(TEXT[6:]).encode()))
    said: list[str] = []
    settings = {"text": (folder / "text.txt", folder / "more.gz"), "samples": 6, **options}
    trim(TrimSettings(model=model, target=folder / "small", **settings), said.append)  # type: ignore[arg-type]
    return folder / "small", said


def names(description: Description, lines: list[str]) -> list[list[str]]:
    tokenizer = description.open_tokenizer()
    return [[tokenizer.decode([token]) for token in tokenizer.encode(line)] for line in lines]


def test_a_tuned_model(tmp_path: Path) -> None:
    folder, said = trimmed(tmp_path)
    before, after = read_description(tmp_path / "model"), read_description(folder)
    used = {piece for numbers in before.open_tokenizer().pieces(TEXT) for piece in numbers.tolist()}
    assert len(used | {0, 1, 2}) <= after.vocabulary.num_pieces <= len(used | {0, 1, 2}) + 1 < 80
    assert names(after, TEXT) == names(before, TEXT)
    assert after.vocabulary.num_sentinels == 0
    assert after.vocabulary.num_tags == 2
    first = after.vocabulary.first_tag_id
    assert after.task == dataclasses.replace(before.task, tags={"fr": first + 1, "de": first})  # type: ignore[type-var]
    assert after.languages == before.languages
    assert after.training["steps"] == 7
    assert after.training["trimmed"] == {
        "text": ["text.txt", "more.gz"],
        "min_count": 1,
        "pieces_before": 120,
    }
    assert "tokenisation: 12 of 12 lines cut as before, piece by piece" in said
    assert "greedy outputs, dropped pieces forbidden before: 6 of 6 are the same" in said
    assert said[-1] == f"written: {folder}"


def test_the_smaller_model_computes_the_same(tmp_path: Path) -> None:
    folder, _ = trimmed(tmp_path)
    old, new = DeltaLM.from_pretrained(tmp_path / "model"), DeltaLM.from_pretrained(folder)
    before, after = read_description(tmp_path / "model"), read_description(folder)
    old_ids, new_ids = ([d.open_tokenizer().encode(TEXT[3])] for d in (before, after))
    tags = [d.task.tags["fr"] for d in (before, after) if d.task]
    logits = [
        model.forward_padded(torch.tensor([[0, tag, *ids[0], 2]]), torch.tensor([[2, *ids[0]]]))[0]
        for model, ids, tag in ((old, old_ids, tags[0]), (new, new_ids, tags[1]))
    ]
    torch.testing.assert_close(logits[1][:, new_ids[0]], logits[0][:, old_ids[0]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits[1][:, [0, 2, 3, tags[1]]], logits[0][:, [0, 2, 3, tags[0]]])
    assert new.config.vocabulary_rows == after.vocabulary.num_rows


@pytest.mark.parametrize(
    ("is_tuned", "keep", "count"), [(True, False, 0), (True, True, 10), (False, False, 10), (False, True, 10)]
)
def test_sentinels(is_tuned: bool, keep: bool, count: int, tmp_path: Path) -> None:
    folder, _ = trimmed(tmp_path, is_tuned, keep_sentinels=keep)
    config = load_pretrained(folder).config
    assert config.num_sentinels == read_description(folder).vocabulary.num_sentinels == count
    if count:
        table = load_pretrained(folder).state_dict["embedding.weight"]
        old = load_pretrained(tmp_path / "model")
        first = old.config.first_sentinel_id
        assert torch.equal(
            table[config.first_sentinel_id : config.first_sentinel_id + count],
            old.state_dict["embedding.weight"][first : first + count],
        )


def test_rare_pieces_can_go(tmp_path: Path) -> None:
    folder, said = trimmed(tmp_path, min_count=4)
    assert read_description(folder).vocabulary.num_pieces < 65
    (line,) = (line for line in said if line.startswith("tokenisation:"))
    assert "12 of 12" not in line


def test_the_last_folder_stays_as_it_was(tmp_path: Path) -> None:
    folder, _ = trimmed(tmp_path)
    contents = (folder / "config.json").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        trimmed(tmp_path)
    assert (folder / "config.json").read_bytes() == contents


def test_nothing_is_written_where_the_text_would_be_cut_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trimming_run.trim_model
    monkeypatch.setattr(trimming_run, "trim_model", lambda a, b, keep, *rest: real(a, b, keep[:-9], *rest))
    with pytest.raises(UserError, match=r"of 12 lines are cut differently .* nothing was written"):
        trimmed(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.model", "model", "more.gz", "text.txt"]


def test_nothing_is_written_where_logits_are_no_numbers(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    content = json.loads((model / "config.json").read_text())
    del content["weights"]
    (model / "config.json").write_text(json.dumps(content))
    tensors = load_file(model / "model.safetensors")
    tensors["decoder.positions.weight"][5] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"config": json.dumps(content["model"])})
    (tmp_path / "text.txt").write_text("\n".join(TEXT))
    with pytest.raises(UserError, match=r"logits of kept tokens differ by nan .* nothing was written"):
        trim(
            TrimSettings(model=model, target=tmp_path / "small", text=(tmp_path / "text.txt",)),
            lambda _: None,
        )
    assert not (tmp_path / "small").exists()


def test_text_that_cannot_be_used(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    for name, content, message in (
        ("empty.txt", b"\n \n", "no text"),
        ("bad.txt", b"good\nb\xffd\n", "line 2, is not UTF-8"),
        ("text.jsonl", b'{"text": "a"}\n', "is JSON"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            trim(
                TrimSettings(model=model, target=tmp_path / "small", text=(tmp_path / name,)), lambda _: None
            )
    with pytest.raises(UserError, match=r"cannot be read"):
        trim(
            TrimSettings(model=model, target=tmp_path / "small", text=(tmp_path / "none.txt",)),
            lambda _: None,
        )
    assert not (tmp_path / "small").exists()


def test_impossible_settings() -> None:
    for name in ("min_count", "samples"):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be 1 or more"):
            TrimSettings(model=Path("a"), target=Path("b"), text=(Path("c"),), **{name: 0})


def test_tokenizer_bytes_do_not_depend_on_where_they_are_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        trimmed(tmp_path / name)
    one, two = ((tmp_path / name / "small/sentencepiece.bpe.model").read_bytes() for name in ("one", "two"))
    assert one == two != TOKENIZER
