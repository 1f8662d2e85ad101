"""Steps of made-up batches through the trainer's engine, for measuring what the planner predicts.

Every rank has micro-batches of samples of one length, of random ids: memory, communication and time of a step
depend on lengths alone.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from deltalm_ds.data.batches import PackedBatch
from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, Recomputation
from deltalm_ds.model.new_weights import NewWeights
from deltalm_ds.planning.activations import MicroBatch
from deltalm_ds.planning.zero import Dtype
from deltalm_ds.training.deepspeed_batch import RequestedBatch
from deltalm_ds.training.deepspeed_config import DeepSpeedConfig, read_deepspeed_config
from deltalm_ds.training.engine import Engine
from deltalm_ds.training.optimizer import OptimizerSettings, build_optimizer

_DS_CONFIGS = Path(__file__).resolve().parent.parent / "ds_configs"
_FIRST_ID = 4  # of pieces
_CPU = torch.device("cpu")


def read_stage(
    stage: int, num_ranks: int, num_samples: int, num_micro_steps: int, folder: Path, dtype: Dtype = "fp32"
) -> DeepSpeedConfig:
    """The shipped configuration of a ZeRO stage, or for stage 0 one that says nothing else."""
    path = _DS_CONFIGS / f"zero{stage}.json"
    if stage == 0:
        path = folder / "zero0.json"
        path.write_text(json.dumps({"zero_optimization": {"stage": 0}}))
    return read_config(path, num_ranks, num_samples, num_micro_steps, dtype)


def read_config(
    path: Path, num_ranks: int, num_samples: int, num_micro_steps: int, dtype: Dtype = "fp32"
) -> DeepSpeedConfig:
    """A configuration for micro-batches of `num_samples`."""
    batch = RequestedBatch(num_samples * num_ranks * num_micro_steps, num_samples)
    return read_deepspeed_config(path, batch, num_ranks, gradient_clipping=1.0, default_dtype=dtype)


def model_config(**sizes: int) -> DeltaLMConfig:
    """A model of these sizes whose special ids fit into its table."""
    rows = sizes["vocabulary_rows"]
    return DeltaLMConfig(**sizes, mask_id=rows - 101, first_sentinel_id=rows - 100)  # type: ignore[arg-type]


class MadeUpRun:
    """An engine on this rank, and steps for it."""

    def __init__(
        self,
        model: DeltaLMConfig,
        config: DeepSpeedConfig,
        batch: MicroBatch,
        every: int,
        device: torch.device = _CPU,
    ) -> None:
        with torch.device("meta"):
            built = DeltaLM(model)
        built.recomputation = Recomputation(every)
        optimizer = build_optimizer(built, OptimizerSettings(), device)
        self.engine = Engine(built, optimizer, config, NewWeights(built, seed=0), Path(tempfile.gettempdir()))
        self.engine.set_learning_rate(1e-4)
        self.model, self.config, self.batch, self.device = model, config, batch, device

    def step(self, number: int) -> None:
        """One optimizer step."""
        batches = list(self._batches(number))
        labels = sum(batch.num_target_tokens for batch in batches) * dist.get_world_size()
        outcome, _ = self.engine.step(
            batches, torch.tensor(labels, dtype=torch.float64, device=self.device), DropoutState(1, number)
        )
        assert outcome.applied

    def _batches(self, step: int) -> Iterator[PackedBatch[torch.Tensor]]:
        generator = torch.Generator().manual_seed(step * dist.get_world_size() + dist.get_rank())
        batch, rows = self.batch, self.model.vocabulary_rows
        numbers = torch.arange(batch.num_samples + 1, dtype=torch.int32, device=self.device)
        for _ in range(self.config.gradient_accumulation_steps):
            source, decoder_input, labels = (
                torch.randint(_FIRST_ID, rows, (batch.tokens(side),), generator=generator).to(self.device)
                for side in ("source", "target", "target")
            )
            yield PackedBatch(
                source_tokens=source,
                source_cumulative_lengths=numbers * batch.source_length,
                max_source_length=batch.source_length,
                decoder_input=decoder_input,
                labels=labels,
                target_cumulative_lengths=numbers * batch.target_length,
                max_target_length=batch.target_length,
                sample_ids=numbers[:-1].long(),
                groups=torch.zeros(batch.num_samples, dtype=torch.int64, device=self.device),
                num_target_tokens=len(labels),
            )
