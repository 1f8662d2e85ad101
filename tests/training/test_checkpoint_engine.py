from __future__ import annotations

import os
import pickle
import resource
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from deltalm_ds.files import sha256_of
from deltalm_ds.training.checkpoint_engine import (
    SnapshotEngine,
    copy_to_host,
    num_tensor_bytes,
    restricted_loading,
    write_synced,
)


class Malicious:
    """Runs code when unpickled without restriction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def deepspeed_like_state() -> dict[str, Any]:
    scaler = DynamicLossScaler(2.0**6, 2, 1, 2, False)
    scaler.cur_hysteresis = 1
    weight = torch.randn(3, 4)
    return {
        "module": OrderedDict(a=torch.nn.Parameter(weight), b=weight),
        "loss_scaler": scaler,
        "zero_stage": ZeroStageEnum.weights,
        "param_slice_mappings": [OrderedDict(a=fragment_address(numel=12, start=0))],
        "param_shapes": [OrderedDict(a=weight.shape)],
        "plain": [1, 2.5, None, True, "text", (3, {4})],
        "types": [torch.float16, torch.device("cpu")],
    }


def test_a_deepspeed_state_survives_file_and_restriction(tmp_path: Path) -> None:
    state = deepspeed_like_state()
    path = tmp_path / "state.pt"
    record = write_synced(copy_to_host(state), path)
    assert (record.size, record.sha256) == (path.stat().st_size, sha256_of(path))
    with restricted_loading():
        loaded = SnapshotEngine().load(str(path))
    assert torch.equal(loaded["module"]["a"], state["module"]["a"])
    assert loaded["module"]["a"].data_ptr() == loaded["module"]["b"].data_ptr()
    assert vars(loaded["loss_scaler"]) == vars(state["loss_scaler"])
    # Python 3.11.2 would pickle the enumeration's member as a call of getattr.
    assert type(loaded["zero_stage"]) is int
    for name in ("zero_stage", "param_slice_mappings", "param_shapes", "plain", "types"):
        assert loaded[name] == state[name]


def test_copies_are_tight_apart_from_the_original_and_tied_like_it() -> None:
    flat = torch.arange(100.0)
    state = {"part": flat[10:20], "tied": flat[10:20], "other": flat[20:30], "empty": flat[:0]}
    copies = copy_to_host(state)
    flat.zero_()
    assert copies["part"].tolist() == list(range(10, 20))
    assert copies["other"].tolist() == list(range(20, 30))
    assert copies["part"] is copies["tied"]
    assert copies["part"].untyped_storage().nbytes() == 40
    assert num_tensor_bytes(copies) == 80


@pytest.mark.parametrize("value", [object(), torch.ones(1).numpy(), [{"deep": Path("x")}]])
def test_what_could_not_be_read_back_is_not_copied(value: Any) -> None:
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        copy_to_host({"value": value})


def test_no_code_runs_whatever_the_caller_says(tmp_path: Path) -> None:
    path, trace = tmp_path / "state.pt", tmp_path / "trace"
    torch.save({"state": Malicious(trace)}, path)
    with restricted_loading():
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=False)
        with pytest.raises(pickle.UnpicklingError):
            SnapshotEngine().load(str(path))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_restriction_nests_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save(LossScaler(4.0), path)
    with restricted_loading():
        with restricted_loading():
            pass
        assert torch.load(path, weights_only=False).cur_scale == 4.0
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_a_failed_write_shows_its_own_reason(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_synced({"weight": torch.randn(10_000)}, tmp_path / "state.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
