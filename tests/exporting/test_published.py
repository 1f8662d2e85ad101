"""The released layout and fairseq's, there and back."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest
import torch
from export_samples import PARITY, released_model, same_weights, sample_model

from deltalm_ds.errors import UserError
from deltalm_ds.exporting.model import cast, read_model
from deltalm_ds.exporting.published import write_fairseq, write_released
from deltalm_ds.weights.safe import load_torch_file


def test_the_released_file_comes_back_exactly(tmp_path: Path) -> None:
    write_released(released_model(), tmp_path / "again.pt")
    expected, found = load_torch_file(PARITY / "released.pt"), load_torch_file(tmp_path / "again.pt")
    assert found.keys() == {"weights"}
    assert found["weights"].keys() == expected["weights"].keys()
    for name, tensor in expected["weights"].items():
        assert torch.equal(found["weights"][name], tensor), name


@pytest.mark.parametrize("changes", [{}, {"pre_layer_norm": True}, {"embedding_layer_norm": False}])
def test_every_parameter_goes_there_and_back(changes: dict[str, bool], tmp_path: Path) -> None:
    model = sample_model(num_sentinels=0, mask_id=60, first_sentinel_id=60, **changes)
    write_released(model, tmp_path / "released.pt")
    found = read_model(tmp_path / "released.pt", heads=4)
    assert found.config == dataclasses.replace(
        model.config, dropout=0.1, attention_dropout=0.0, activation_dropout=0.0
    )
    same_weights(found, model)
    write_fairseq(found, tmp_path / "fairseq.pt")
    again = read_model(tmp_path / "fairseq.pt")
    assert again.config == found.config
    same_weights(again, model)


def test_what_fairseq_needs_beside_the_weights(tmp_path: Path) -> None:
    write_fairseq(released_model(), tmp_path / "fairseq.pt")
    state = load_torch_file(tmp_path / "fairseq.pt")
    assert isinstance(state["args"], argparse.Namespace)
    assert (state["args"].encoder_layers, state["args"].decoder_layers) == (4, 2)
    assert state["args"].decoder_attention_heads == 4
    assert not state["args"].encoder_normalize_before
    table = state["model"]["decoder.output_projection.weight"]
    assert table.data_ptr() == state["model"]["encoder.embed_tokens.weight"].data_ptr()
    assert state["model"]["encoder.version"].tolist() == [3.0]


def test_sixteen_bits(tmp_path: Path) -> None:
    model = cast(sample_model(), "bf16")
    write_released(model, tmp_path / "half.pt")
    tensors = load_torch_file(tmp_path / "half.pt")["weights"].values()
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    same_weights(cast(read_model(tmp_path / "half.pt", heads=4), "bf16"), model)


def test_what_the_published_code_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adds 0\.001 in its LayerNorms"):
        write_released(sample_model(layer_norm_epsilon=1e-3), tmp_path / "never.pt")
    with pytest.raises(UserError, match="has no standard decoder"):
        write_fairseq(sample_model(decoder="standard"), tmp_path / "never.pt")
    assert not any(tmp_path.iterdir())
