"""Reading what is to be exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from export_samples import PARITY, same_weights, sample_model, tokenizer_file

from deltalm_ds.errors import UserError
from deltalm_ds.exporting.model import average, cast, read_model, with_tokenizer
from deltalm_ds.exporting.published import write_released
from deltalm_ds.model import DeltaLM
from deltalm_ds.weights import save_own


def test_heads_of_a_file_that_does_not_say_them(tmp_path: Path) -> None:
    assert read_model(PARITY / "released.pt").config.num_heads == 1  # width 64
    assert read_model(PARITY / "released.pt", heads=4).config.num_heads == 4
    write_released(sample_model(), tmp_path / "narrow.pt")
    with pytest.raises(UserError, match=r"width 32 is no multiple of 64; give --heads"):
        read_model(tmp_path / "narrow.pt")


def test_heads_that_the_source_says_otherwise(tmp_path: Path) -> None:
    save_own(sample_model(), tmp_path / "own")
    assert read_model(tmp_path / "own").config.num_heads == 4
    with pytest.raises(UserError, match="num_heads 4, but 8 was asked for"):
        read_model(tmp_path / "own", heads=8)


def test_the_average_of_three() -> None:
    model = sample_model()
    others = [
        dataclasses.replace(model, weights={name: tensor * factor for name, tensor in model.weights.items()})
        for factor in (2.0, 6.0)
    ]
    found = average(model, others)
    for name, tensor in found.weights.items():
        torch.testing.assert_close(tensor, model.weights[name] * 3)
    with pytest.raises(UserError, match="feed_forward_width is 48 in the first source, and 40 in the made"):
        average(model, [sample_model(feed_forward_width=40)])
    same_weights(average(model, [sample_model(dropout=0.5)]), model)


def test_a_tokenizer_for_a_source_without_one(tmp_path: Path) -> None:
    model = sample_model(num_sentinels=5, mask_id=25, first_sentinel_id=26)
    described = with_tokenizer(model, tokenizer_file(tmp_path, 24))
    assert described.described().vocabulary.sentinel_id(0) == 26
    save_own(described, tmp_path / "own", described.description)
    again = read_model(tmp_path / "own")
    assert again.described().vocabulary == described.described().vocabulary
    with pytest.raises(UserError, match="has its tokenizer already"):
        with_tokenizer(again, tmp_path / "any.model")
    with pytest.raises(UserError, match=r"has no tokenizer.*give --tokenizer"):
        model.described()
    for other in (sample_model(), sample_model(vocabulary_rows=24, num_sentinels=0, first_sentinel_id=24)):
        with pytest.raises(UserError, match=r"has 24 pieces.*give the tokenizer that the model"):
            with_tokenizer(other, tmp_path / "any.model")


def test_numbers_too_large_for_sixteen_bits() -> None:
    model = sample_model()
    large = {**model.weights, "embedding.weight": model.weights["embedding.weight"] * 1e6}
    with pytest.raises(UserError, match=r"embedding\.weight holds numbers that fp16 cannot"):
        dict(cast(dataclasses.replace(model, weights=large), "fp16").weights)


def test_build_shares_the_tensors() -> None:
    model = sample_model()
    built = model.build()
    assert isinstance(built, DeltaLM)
    assert built.embedding.weight.data_ptr() == model.weights["embedding.weight"].data_ptr()
