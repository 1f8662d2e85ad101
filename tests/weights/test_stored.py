"""Parts of stored weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.model.new_weights import NewWeights
from deltalm_ds.weights import load_pretrained, save_own
from deltalm_ds.weights.stored import OnDemand, StoredWeights


def test_a_part_may_cover_several_tensors_of_any_dtype() -> None:
    pieces = (torch.arange(6.0).view(3, 2), torch.tensor([6, 7]).bfloat16(), torch.arange(8.0, 12).view(2, 2))
    weights = StoredWeights({"x": pieces, "other": (torch.zeros(3),)})
    for start in range(13):
        for stop in range(start, 13):
            part = weights.part("x", start, stop)
            assert part.dtype == torch.float32
            assert part.tolist() == list(range(start, stop))
    with pytest.raises(AssertionError):
        weights.part("x", 0, 13)
    pieces[0].zero_()
    assert weights.part("x", 1, 3).tolist() == [0, 0]


def test_what_is_not_stored_is_drawn(config: DeltaLMConfig) -> None:
    with torch.device("meta"):
        drawn = NewWeights(DeltaLM(config), seed=3)
    weights = StoredWeights({"embedding.weight": (torch.zeros(config.vocabulary_rows, config.width),)}, drawn)
    name = "encoder.layers.0.attention.query_weight"
    assert torch.equal(weights.part(name, 5, 9), drawn.part(name, 5, 9))
    assert not weights.part("embedding.weight", 0, 40).any()
    table = torch.ones(config.vocabulary_rows, config.width)
    assert weights.replaced("embedding.weight", table).part("embedding.weight", 0, 4).tolist() == [1] * 4
    weights.release()
    for gone in (name, "embedding.weight"):
        with pytest.raises(KeyError):
            weights.part(gone, 0, 4)


def test_parts_of_a_folder_are_the_models(model: DeltaLM, tmp_path: Path) -> None:
    save_own(model, tmp_path)
    weights = load_pretrained(tmp_path).weights
    for name, parameter in model.named_parameters():
        size = parameter.numel()
        for start, stop in ((0, size // 3), (size // 3, size)):
            assert torch.equal(weights.part(name, start, stop), parameter.flatten()[start:stop]), name


def test_new_rows_stand_behind_those_of_the_file(
    hugging_face_tensors: dict[str, Tensor], write_hugging_face: Callable[..., Path]
) -> None:
    loaded = load_pretrained(write_hugging_face(hugging_face_tensors), seed=4)
    table = loaded.state_dict["embedding.weight"]
    old = hugging_face_tensors["roberta.embeddings.word_embeddings.weight"]
    assert len(old) < len(table)
    edge = old.numel()
    assert torch.equal(loaded.weights.part("embedding.weight", 0, edge), old.flatten())
    crossing = loaded.weights.part("embedding.weight", edge - 5, edge + 5)
    assert torch.equal(crossing, table.flatten()[edge - 5 : edge + 5])


def test_random_cross_attention_equals_that_of_a_new_model_of_the_seed(
    hugging_face_tensors: dict[str, Tensor], write_hugging_face: Callable[..., Path]
) -> None:
    loaded = load_pretrained(write_hugging_face(hugging_face_tensors), decoder="standard", seed=4)
    new = DeltaLM(loaded.config, seed=4).state_dict()
    names = [name for name in new if ".cross_attention." in name]
    assert names
    for name in names:
        assert torch.equal(loaded.state_dict[name], new[name]), name


def test_tensors_on_demand() -> None:
    made: list[str] = []

    def make(name: str) -> Tensor:
        made.append(name)
        return torch.ones(len(name))

    tensors = OnDemand(["a", "bb", "a"], make)
    assert (list(tensors), len(tensors), "bb" in tensors, "c" in tensors) == (["a", "bb"], 2, True, False)
    with pytest.raises(KeyError):
        tensors["c"]
    assert made == []
    assert tensors["a"].tolist() == [1]
