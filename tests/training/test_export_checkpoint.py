"""Checkpoints of every ZeRO stage, read by one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed import Outcome, run_distributed

from deltalm_ds.errors import UserError
from deltalm_ds.weights import OnDemand

CASES = [
    (0, "fp32"),
    (0, "bf16"),
    (1, "fp16"),
    (1, "bf16"),
    (2, "fp16"),
    (2, "fp32"),
    (3, "bf16"),
    (3, "fp32"),
]


def save_all(root: str) -> None:
    """Two steps of every case, the checkpoint, and what the engine itself says its weights are."""
    from functools import partial

    from test_engine import CONFIG, DROPOUT, made_engine, made_samples, run_step

    from deltalm_ds.training.checkpoint_folder import RunState
    from deltalm_ds.training.checkpoints import CheckpointStore
    from deltalm_ds.training.distributed import join_processes, on_first
    from deltalm_ds.training.optimizer import OptimizerSettings, build_optimizer
    from deltalm_ds.training.resuming import claim

    join_processes()
    world_size = dist.get_world_size()
    settings = OptimizerSettings(learning_rate=1e-3)
    for stage, dtype in CASES:
        engine = made_engine(
            Path(root),
            stage,
            dtype,
            1,
            world_size,
            optimizer=lambda model: build_optimizer(model, settings, torch.device("cpu")),
        )
        engine.set_learning_rate(1e-3)
        for _ in range(2):
            run_step(engine, made_samples(), 1, DROPOUT)
        folder = Path(root) / f"{stage}-{dtype}"
        state = RunState(
            step=2,
            next_position=14,
            world_size=world_size,
            zero_stage=stage,
            dtype=dtype,
            fingerprint={},
            model_config=CONFIG.to_dict(),
        )
        lease = on_first(partial(claim, folder / "checkpoints"))
        CheckpointStore(folder / "checkpoints", engine.deepspeed, num_kept=1, lease=lease).save(state)
        weights = engine.full_weights()
        if dist.get_rank() == 0:
            torch.save(dict(weights), folder / "expected.pt")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def saved(root: Path) -> list[Outcome]:
    return run_distributed(save_all, 2, root=str(root))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "dtype"), CASES)
def test_the_weights_of_the_engine(stage: int, dtype: str, root: Path, saved: list[Outcome]) -> None:
    from test_engine import CONFIG, made_model

    from deltalm_ds.training.export_checkpoint import read_checkpoint

    folder = root / f"{stage}-{dtype}"
    expected = torch.load(folder / "expected.pt", weights_only=True)
    before = dict(made_model().named_parameters())
    for path in (folder, folder / "checkpoints" / "step_2"):
        found = read_checkpoint(path)
        assert found.config == CONFIG
        assert isinstance(found.weights, OnDemand)
        assert found.weights.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found.weights[name].dtype == torch.float32
            assert torch.equal(found.weights[name], tensor), name
    assert f"(step 2, ZeRO {stage}, {dtype}, 2 processes)" in found.origin
    assert not torch.equal(found.weights["embedding.weight"], before["embedding.weight"])
    assert not dist.is_initialized()


@pytest.mark.slow
def test_what_is_no_whole_checkpoint(root: Path, saved: list[Outcome]) -> None:
    from deltalm_ds.training.export_checkpoint import read_checkpoint

    folder = root / "1-bf16" / "checkpoints" / "step_2"
    part = next(folder.glob("*rank_1*optim_states.pt"))
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    try:
        with pytest.raises(UserError, match=r"step_2 is not whole .*convert another"):
            read_checkpoint(folder)
        with pytest.raises(UserError, match="none is whole"):
            read_checkpoint(folder.parent.parent)
    finally:
        part.write_bytes(content)


@pytest.mark.slow
def test_no_code_of_a_checkpoint_runs(root: Path, saved: list[Outcome], tmp_path: Path) -> None:
    import shutil

    from test_universal import tamper

    from deltalm_ds.training.export_checkpoint import read_checkpoint

    for stage, pattern in (
        (0, "mp_rank_00*"),
        (2, "*rank_1*optim_states.pt"),
        (3, "*rank_1*model_states.pt"),
    ):
        folder = tmp_path / str(stage) / "step_2"
        shutil.copytree(root / f"{stage}-fp32" / "checkpoints" / "step_2", folder)
        tamper(folder, pattern, tmp_path / "trace")
        with pytest.raises(UserError, match="is refused, for loading it could run code"):
            read_checkpoint(folder)
    assert not (tmp_path / "trace").exists()
