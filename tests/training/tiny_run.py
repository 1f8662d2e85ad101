"""A training run small enough for tests of checkpoints: tied weights, two parameter groups, a schedule."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime.fp16.loss_scaler import LossScalerBase
from distributed import let_deepspeed_run_fp16
from torch import Tensor, nn
from torch.nn import functional

from deltalm_ds.training.checkpoint_engine import SnapshotEngine
from deltalm_ds.training.checkpoint_folder import RunState
from deltalm_ds.training.checkpoints import CheckpointStore
from deltalm_ds.training.distributed import on_first
from deltalm_ds.training.resuming import Resumable, claim, find_resumable

GLOBAL_BATCH = 8
ACCUMULATION = 2
LENGTH = 6
ROWS = 23
WIDTH = 10
MODEL_CONFIG = {"width": WIDTH, "rows": ROWS, "decoder": "interleaved"}
FINGERPRINT = {"seed": 1, "tokenizer": {"sha256": "abc"}}


class TiedModel(nn.Module):
    """Tokens [batch, length] → logits [batch, length, ROWS]; the output shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(ROWS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, ROWS, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(torch.tanh(self.hidden(self.norm(self.embedding(tokens)))))


class TinyRun:
    """An engine at step 0, or where `resume` has put it."""

    def __init__(
        self, stage: int, dtype: str, *, load_universal: bool = False, offload: bool = False
    ) -> None:
        let_deepspeed_run_fp16()
        self.stage, self.dtype, self.step = stage, dtype, 0
        torch.manual_seed(0)
        model = TiedModel()
        decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in model.parameters() if parameter.dim() == 1]
        groups = [{"params": decayed, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=0.05)
        self.engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
            config=_deepspeed_config(stage, dtype, load_universal, offload),
        )

    def train(self, num_steps: int, overflow_at: int | None = None) -> list[float]:
        """The global loss of each step; at step `overflow_at` the gradient is infinite, so fp16 skips it."""
        losses = []
        for _ in range(num_steps):
            generator = torch.Generator().manual_seed(self.step)
            tokens = torch.randint(0, ROWS, (GLOBAL_BATCH, LENGTH), generator=generator)
            total = torch.zeros(())
            for micro_batch in tokens.chunk(ACCUMULATION):
                share = micro_batch.chunk(dist.get_world_size())[dist.get_rank()]
                logits = self.engine(share[:, :-1]).float()
                loss = functional.cross_entropy(logits.flatten(0, 1), share[:, 1:].flatten(), reduction="sum")
                loss = loss / (GLOBAL_BATCH * (LENGTH - 1))
                total += loss.detach()
                if self.step == overflow_at:
                    loss = loss * float("inf")
                self.engine.backward(loss * dist.get_world_size(), scale_wrt_gas=False)
                self.engine.step()
            dist.all_reduce(total)
            losses.append(total.item())
            self.step += 1
        return losses

    def state(self) -> RunState:
        return run_state(self.step, world_size=dist.get_world_size(), zero_stage=self.stage, dtype=self.dtype)

    def digest(self) -> str:
        """Hash of all this rank holds: weights, masters, moments, counters, loss scaler, schedule."""
        collector = SnapshotEngine()
        own, self.engine.checkpoint_engine = self.engine.checkpoint_engine, collector
        with tempfile.TemporaryDirectory() as scripts:
            self.engine.save_checkpoint(scripts, tag="digest", save_latest=False)
        self.engine.checkpoint_engine = own
        digest = hashlib.sha256()
        for text in _described(collector.collected):
            digest.update(text)
        return digest.hexdigest()

    def summary(self, losses: list[float]) -> dict[str, Any]:
        return {"losses": losses, "digest": self.digest(), "skipped": self.engine.skipped_steps}


def run_state(step: int, **changes: Any) -> RunState:
    fields: dict[str, Any] = {
        "step": step,
        "next_position": step * GLOBAL_BATCH,
        "world_size": 1,
        "zero_stage": 0,
        "dtype": "fp32",
        "fingerprint": FINGERPRINT,
        "model_config": MODEL_CONFIG,
        **changes,
    }
    return RunState(**fields)


def find(directory: Path, **changes: Any) -> Resumable:
    fields: dict[str, Any] = {
        "world_size": dist.get_world_size(),
        "zero_stage": 0,
        "dtype": "fp32",
        "model_config": MODEL_CONFIG,
        "fingerprint": FINGERPRINT,
        **changes,
    }
    return find_resumable(directory, **fields)


def new_store(directory: Path, run: TinyRun) -> CheckpointStore:
    """For a run that begins in the folder."""
    lease = on_first(lambda: claim(directory))
    return CheckpointStore(directory, run.engine, num_kept=2, lease=lease)


def resume(
    directory: Path, stage: int, dtype: str, offload: bool = False
) -> tuple[TinyRun, CheckpointStore, Resumable]:
    resumable = find(directory, zero_stage=stage, dtype=dtype)
    run = TinyRun(stage, dtype, load_universal=resumable.needs_universal, offload=offload)
    store = CheckpointStore(directory, run.engine, num_kept=2, lease=resumable.lease)
    run.step = store.load(resumable).step
    return run, store, resumable


def _deepspeed_config(stage: int, dtype: str, load_universal: bool, offload: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": GLOBAL_BATCH // ACCUMULATION // dist.get_world_size(),
        "gradient_accumulation_steps": ACCUMULATION,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 50},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"load_universal": load_universal},
    }
    if offload:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if dtype == "bf16":
        config["bf16"] = {"enabled": True}
        if stage:
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    if dtype == "fp16":
        config["fp16"] = {"enabled": True, "initial_scale_power": 6, "loss_scale_window": 2, "hysteresis": 1}
    return config


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
    elif isinstance(value, dict):
        for key, item in value.items():
            yield repr(key).encode()
            yield from _described(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _described(item)
    elif isinstance(value, LossScalerBase):
        yield from _described(vars(value))
    else:
        yield repr(value).encode()
