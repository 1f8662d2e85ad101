"""Models past one process: what each holds of them, and training at the widths of the presets xl and xxl."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed import run_distributed

from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState
from deltalm_ds.model.new_weights import NewWeights
from deltalm_ds.weights import save_own

SIZES = {
    "max_positions": 64,
    "num_sentinels": 0,
    "first_sentinel_id": 0,
    "mask_id": 0,
}
HELD = DeltaLMConfig(
    vocabulary_rows=8000,
    width=1024,
    feed_forward_width=4096,
    num_heads=16,
    num_encoder_layers=8,
    num_decoder_blocks=4,
    **SIZES,
)
"""Of 210 million parameters, the largest module of which has 8 million."""
WIDTHS_OF_XL = DeltaLMConfig(
    vocabulary_rows=96,
    width=2048,
    feed_forward_width=8192,
    num_heads=32,
    num_encoder_layers=1,
    num_decoder_blocks=1,
    **SIZES,
)
"""Of 152 million parameters."""
WIDTHS_OF_XXL = replace(WIDTHS_OF_XL, width=4096, feed_forward_width=16384, num_heads=64)
"""Of 606 million parameters."""
MODELS = {"xl": WIDTHS_OF_XL, "xxl": WIDTHS_OF_XXL}
SEED = 5


class Memory:
    """What this process has come to hold, in bytes."""

    def __init__(self) -> None:
        # Freed memory goes back at once, so that the peak is what was held, not what malloc kept.
        assert ctypes.CDLL(None).mallopt(-3, 1 << 20) == 1  # M_MMAP_THRESHOLD
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes VmRSS
        self._before = self._read("VmRSS")

    def peak(self) -> int:
        """The most since `begin`, more than there was then."""
        return self._read("VmHWM") - self._before

    def now(self) -> int:
        """What is held now, more than there was at `begin`."""
        return self._read("VmRSS") - self._before

    def _read(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def engine_of(
    folder: Path, config: DeltaLMConfig, stage: int, dtype: str, start: Path | None = None, adam: bool = False
) -> Any:
    from test_engine import NUM_SAMPLES

    from deltalm_ds.model import Recomputation
    from deltalm_ds.training.deepspeed_config import RequestedBatch, read_deepspeed_config
    from deltalm_ds.training.engine import Engine
    from deltalm_ds.training.optimizer import OptimizerSettings, build_optimizer
    from deltalm_ds.weights import load_pretrained

    content = {
        "train_batch_size": NUM_SAMPLES,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 5_000_000},
        **({dtype: {"enabled": True}} if dtype != "fp32" else {}),
    }
    path = folder / f"{stage}-{dtype}-{dist.get_rank()}.json"
    path.write_text(json.dumps(content))
    requested = RequestedBatch(None, None)
    resolved = read_deepspeed_config(
        path, requested, dist.get_world_size(), gradient_clipping=1.0, default_dtype="fp32"
    )
    with torch.device("meta"):
        model = DeltaLM(config)
    weights = NewWeights(model, SEED) if start is None else load_pretrained(start).weights
    model.recomputation = Recomputation(1)
    if adam:
        optimizer = build_optimizer(model, OptimizerSettings(), torch.device("cpu"))
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    engine = Engine(model, optimizer, resolved, weights, folder)
    weights.release()
    return engine


def held(folder: str, dtype: str, start: str | None, save: bool) -> dict[str, int]:
    """Bytes of one of two processes: the peak of starting, what is left of it, the peak of saving."""
    from deltalm_ds.training.distributed import join_processes

    join_processes()
    memory = Memory()
    engine = engine_of(Path(folder), HELD, 3, dtype, None if start is None else Path(start))
    found = {"starting": memory.peak(), "started": memory.now()}
    if save:
        memory.begin()
        weights = engine.full_weights()
        if dist.get_rank() == 0:
            save_own(_Saved(weights), Path(folder) / "model")
        found["saving"] = memory.peak()
    return found


class _Saved:
    config = HELD

    def __init__(self, weights: Any) -> None:
        self._weights = weights

    def state_dict(self) -> Any:
        return self._weights


def num_parameters(config: DeltaLMConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in DeltaLM(config).parameters())


WHOLE = 4 * num_parameters(HELD)
"""Bytes of the model in fp32."""
SLACK = WHOLE // 5
"""Bytes beside a process's share: the module that is cut, pieces on their way, DeepSpeed's own."""


def share(dtype: str) -> int:
    """Bytes of one process of two: what the model computes with, masters, gradients; SGD has no moments."""
    return {"bf16": 2 + 4 + 4, "fp32": 4 + 4 + 4}[dtype] * WHOLE // 4 // 2


@pytest.mark.slow
def test_no_process_holds_a_whole_model(tmp_path: Path) -> None:
    for outcome in run_distributed(held, 2, folder=str(tmp_path), dtype="fp32", start=None, save=False):
        assert share("fp32") < outcome.value["starting"] < share("fp32") + SLACK


@pytest.mark.slow
def test_nor_when_it_is_saved_and_read_again(tmp_path: Path) -> None:
    folder = str(tmp_path)
    for outcome in run_distributed(held, 2, folder=folder, dtype="bf16", start=None, save=True):
        assert share("bf16") < outcome.value["starting"] < share("bf16") + SLACK
        assert outcome.value["saving"] < SLACK
    saved = str(tmp_path / "model")
    for outcome in run_distributed(held, 2, folder=folder, dtype="bf16", start=saved, save=False):
        # Half of the file is mapped meanwhile, in units of the page cache, which may take it back.
        assert share("bf16") < outcome.value["starting"] < share("bf16") + WHOLE * 4 // 5
        assert share("bf16") < outcome.value["started"] < share("bf16") + SLACK


def losses_of_steps(
    folder: str, model: str, stage: int, num_steps: int, adam: bool, learning_rate: float, has_dropout: bool
) -> list[float]:
    """Of so many steps, summed over all processes."""
    import test_engine

    from deltalm_ds.training.distributed import join_processes

    join_processes()
    samples = test_engine.made_samples()
    engine = engine_of(Path(folder), MODELS[model], stage, "fp32", adam=adam)
    engine.set_learning_rate(learning_rate)
    found = []
    for step in range(num_steps):
        dropout = DropoutState(seed=3, step=step) if has_dropout else None
        _, losses = test_engine.run_step(engine, samples, 1, dropout)
        total = torch.stack([loss.loss for loss in losses]).sum()
        dist.all_reduce(total)
        found.append(float(total))
    return found


@pytest.mark.slow
def test_training_at_the_widths_of_xl(tmp_path: Path) -> None:
    of_steps = {"num_steps": 3, "adam": True, "learning_rate": 1e-3, "has_dropout": True}
    (sharded, _), (plain, _) = (
        run_distributed(
            losses_of_steps, 2, folder=str(tmp_path), model="xl", stage=stage, **of_steps, timeout=600
        )
        for stage in (3, 1)
    )
    assert sharded.value == pytest.approx(plain.value, rel=1e-5)
    assert plain.value[2] < 0.9 * plain.value[0]


@pytest.mark.slow
def test_training_at_the_widths_of_xxl(tmp_path: Path) -> None:
    """Without moments, for there are two of these processes on a small machine."""
    of_steps = {"num_steps": 2, "adam": False, "learning_rate": 0.1, "has_dropout": False}
    first, second = run_distributed(
        losses_of_steps, 2, folder=str(tmp_path), model="xxl", stage=3, **of_steps, timeout=600
    )[0].value
    assert second < first
