"""Files of weights written tensor by tensor, as the safetensors library reads them."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from deltalm_ds.weights.stored import OnDemand
from deltalm_ds.weights.streaming import write_weights

SHAPES = {"b": (3, 5), "a.weight": (7,), "ü": (2, 0), "scalar": (), "c": (2, 1, 2, 3)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_library_reads_what_was_written(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}
    tensors["b"] = torch.randn(5, 3, generator=generator).to(dtype).T  # in no order of memory
    metadata = {"config": '{"of": "quotes\\" and ä"}'}
    write_weights(tmp_path / "model.safetensors", tensors, metadata)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", **metadata}
        assert set(file.keys()) == tensors.keys()
        for name, tensor in tensors.items():
            found = file.get_tensor(name)
            assert found.dtype == dtype
            assert torch.equal(found, tensor), name
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_no_two_tensors_are_held_at_once(tmp_path: Path) -> None:
    made: list[weakref.ref[Tensor]] = []

    def make(name: str) -> Tensor:
        assert all(tensor() is None for tensor in made[:-1])
        tensor = torch.zeros(1000)
        made.append(weakref.ref(tensor))
        return tensor

    write_weights(tmp_path / "model.safetensors", OnDemand(map(str, range(5)), make), {})
    assert len(made) == 5


def test_a_tensor_that_cannot_be_made_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, {"a": torch.ones(3)}, {})
    before = path.read_bytes()

    def make(name: str) -> Tensor:
        if name == "b":
            raise OSError("gone")
        return torch.zeros(5)

    with pytest.raises(OSError, match="gone"):
        write_weights(path, OnDemand("ab", make), {})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["model.safetensors"]
