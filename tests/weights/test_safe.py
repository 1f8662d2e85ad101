"""Files are read as data: nothing in them runs, and damage is a message."""

from __future__ import annotations

import argparse
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.weights import load_pretrained
from deltalm_ds.weights.safe import check_tensors, load_safetensors, load_torch_file


class Malicious:
    """Touches `marker` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


class MaliciousCall(Malicious):
    """The same by way of eval, whose module is part of every Python."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


def test_the_malicious_objects_of_these_tests_work(tmp_path: Path) -> None:
    for kind in (Malicious, MaliciousCall):
        marker = tmp_path / kind.__name__
        pickle.loads(pickle.dumps(kind(marker)))
        assert marker.exists()


@pytest.mark.parametrize("kind", [Malicious, MaliciousCall])
@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("place", ["beside", "in args", "as a tensor"])
def test_code_in_a_torch_file_never_runs(
    kind: type[Malicious],
    archive: bool,
    place: str,
    released: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    state: dict[str, Any] = {"weights": dict(released)}
    if place == "beside":
        state["extra_state"] = kind(marker)
    elif place == "in args":
        state["args"] = argparse.Namespace(encoder_attention_heads=4, task=kind(marker))
    else:
        state["weights"]["encoder.version"] = kind(marker)
    torch.save(state, path, _use_new_zipfile_serialization=archive)
    # torch lets this variable switch the restricted reader off unless the caller insists.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match=r"refused.*(pathlib|getattr|eval).*nothing but its tensors"):
        load_pretrained(path, num_heads=4)
    assert not marker.exists()


def test_code_in_a_hugging_face_folder_never_runs(
    hugging_face_tensors: dict[str, Tensor], write_hugging_face: Callable[..., Path]
) -> None:
    folder = write_hugging_face(hugging_face_tensors)
    (folder / "model.safetensors").unlink()
    torch.save({**hugging_face_tensors, "x": MaliciousCall(folder / "marker")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="refused"):
        load_pretrained(folder)
    assert not (folder / "marker").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_bare_pickle_never_runs(protocol: int, name: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / name
    path.write_bytes(pickle.dumps({"weights": MaliciousCall(marker)}, protocol=protocol))
    load = load_safetensors if path.suffix == ".safetensors" else load_torch_file
    with pytest.raises(UserError, match=r"refused|not a whole"):
        load(path)
    assert not marker.exists()


def test_the_offending_type_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("omegaconf.dictconfig")
    record = type("DictConfig", (), {"__module__": module.__name__})
    module.DictConfig = record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"cfg": record()}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"\(omegaconf\.dictconfig\.DictConfig\)"):
        load_torch_file(tmp_path / "model.pt")


@pytest.mark.parametrize("archive", [True, False])
def test_a_namespace_is_read_as_a_record(archive: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    args = argparse.Namespace(encoder_layers=12, nested=argparse.Namespace(arch="roberta"))
    torch.save({"args": args, "x": torch.ones(2)}, path, _use_new_zipfile_serialization=archive)
    assert load_torch_file(path)["args"] == args
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_torch_file(archive: bool, share: float, released_path: Path, tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "model.pt"
    state = torch.load(released_path, weights_only=True)
    torch.save(state, whole, _use_new_zipfile_serialization=archive)
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="not a whole torch file"):
        load_torch_file(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_safetensors_file(
    share: float, hugging_face_tensors: dict[str, Tensor], write_hugging_face: Callable[..., Path]
) -> None:
    folder = write_hugging_face(hugging_face_tensors)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_pretrained(folder)


@pytest.mark.parametrize("load", [load_torch_file, load_safetensors])
def test_missing_files_and_folders(load: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "none")
    with pytest.raises(UserError, match=r"cannot be read|not a whole"):
        load(tmp_path)


def test_text_in_place_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="not a whole torch file") as caught:
        load_torch_file(path)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_plain_tensors_are_accepted(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save({"weights": {"x": huge}}, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"x .* has fewer bytes than its shape needs"):
        load_pretrained(tmp_path / "model.pt")
    with pytest.raises(UserError, match="x is not a plain dense tensor"):
        check_tensors(tmp_path, {"x": torch.eye(3).to_sparse()})
    with pytest.raises(UserError, match="x is not a plain dense tensor"):
        check_tensors(tmp_path, {"x": torch.zeros(3, device="meta")})
    with pytest.raises(UserError, match="found list under 'x'"):
        check_tensors(tmp_path, {"x": [1.0]})
    with pytest.raises(UserError, match="found list"):
        check_tensors(tmp_path, [torch.zeros(3)])
