"""The settings of a pre-training run; the command line of `pretrain` is made from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deltalm_ds.data.settings import DataSettings
from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DecoderForm
from deltalm_ds.training.optimizer import OptimizerSettings
from deltalm_ds.training.run_settings import MonitoringSettings, RunSettings
from deltalm_ds.weights import CrossAttentionStart

PresetName = Literal["tiny", "mini", "small", "base", "large", "xl", "xxl"]


@dataclass(frozen=True)
class PresetDefaults:
    """What a run takes where the user says nothing."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int | None
    """None: a tenth of the run."""


# The paper's run from base on, as far as it is known; the small ones are for trying out.
_DEFAULTS: dict[str, PresetDefaults] = {
    "tiny": PresetDefaults(2_000, 16, 1e-3, None),
    "mini": PresetDefaults(5_000, 32, 1e-3, None),
    "small": PresetDefaults(20_000, 128, 5e-4, None),
    "base": PresetDefaults(600_000, 2048, 2e-4, 10_000),
    "large": PresetDefaults(600_000, 2048, 2e-4, 10_000),
    # The rates that GPT-3 took at these sizes (Brown et al., 2020, table 2.1).
    "xl": PresetDefaults(600_000, 2048, 1.6e-4, 10_000),
    "xxl": PresetDefaults(600_000, 2048, 1e-4, 10_000),
}


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(RunSettings):
    """Pre-train DeltaLM on a folder that `python -m deltalm_ds.prepare` made.

    Without --data a small sample corpus is made and a tiny model trained on it, with other defaults (printed
    at the start), for a run of minutes. Start it with `deepspeed`, `torchrun`, `mpirun` or plain `python`.
    """

    data: Path | None = None
    """Prepared folder. Default: the embedded sample, prepared on first use."""
    preset: PresetName | None = None
    """Size of the model, and the defaults of the run. Default: tiny. With --from the sizes come from the
    weights; with --resume both are the run's."""
    plan_data: bool = False
    """Print how often the run will read each language and pair, and end."""
    steps: int | None = None
    """Optimizer steps of the whole run. Default by preset: 600,000 from base on, 20,000 small, 5,000
    mini, 2,000 tiny."""
    batch_size: int | None = None
    """Samples of a global batch, over all processes. Default by preset: 2,048 from base on, 128 small,
    32 mini, 16 tiny."""
    micro_batch_size: int | None = None
    """Samples a process computes at once; the rest of its share is accumulated. Default: 8."""
    layer_norm: Literal["post", "pre"] = "post"
    """Whether a new model normalises after each sub-layer, as DeltaLM does, or before it. With --from it is
    as in the weights."""
    embedding_layer_norm: bool | None = None
    """Whether a new model normalises its embeddings. Default: as released, all but large. With --from it is
    as in the weights."""
    decoder: DecoderForm | None = None
    """DeltaLM's interleaved decoder, or for comparison a standard one of the same size. Default: interleaved
    for a new model and from XLM-R; from a DeltaLM and with --resume as it is there."""
    cross_attention_start: CrossAttentionStart | None = None
    """What a standard decoder's cross-attention starts from with --from XLM-R: random weights, or a copy of
    the same layer's self-attention. Default: random."""
    data_settings: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.from_ is not None and (self.layer_norm == "pre" or self.embedding_layer_norm is not None):
            raise UserError(
                "--layer-norm and --embedding-layer-norm are for new models: with --from the weights decide"
            )
        if self.cross_attention_start is not None and (self.from_ is None or self.decoder != "standard"):
            raise UserError(
                "--cross-attention-start is for --decoder standard with --from an XLM-R: leave it out, or "
                "give both"
            )

    @property
    def is_sample_run(self) -> bool:
        """Whether this is a tiny model on the embedded sample, which has defaults of its own, SAMPLE_RUN."""
        return self.data is None and self.preset in (None, "tiny") and self.from_ is None

    def complete(self, preset_of_run: PresetName | None = None) -> PretrainSettings:
        """The same with the preset's numbers where the user gave none.

        `preset_of_run`, of the run to resume, is taken where the user named no preset.
        """
        preset = self.preset or preset_of_run or "tiny"
        defaults = _DEFAULTS[preset]
        steps = self.steps or defaults.steps
        optimizer = self.optimizer_settings
        warmup = optimizer.warmup_steps
        if warmup is None:
            warmup = defaults.warmup_steps if defaults.warmup_steps is not None else steps // 10
        return dataclasses.replace(
            self,
            preset=preset,
            steps=steps,
            optimizer_settings=dataclasses.replace(
                optimizer,
                warmup_steps=warmup,
                learning_rate=optimizer.learning_rate or defaults.learning_rate,
            ),
        )

    @property
    def default_batch_size(self) -> int:
        """Samples of a global batch where neither the command line nor the DeepSpeed JSON says a number."""
        assert self.preset is not None  # complete() has filled it in
        return _DEFAULTS[self.preset].batch_size


# A run on the embedded sample is to show something within minutes on two CPU cores: short windows, a model
# that learns from nothing at a high rate, pictures of the spans on the way.
SAMPLE_RUN = PretrainSettings(
    steps=400,
    layer_norm="pre",
    dropout=0.0,
    data_settings=DataSettings(max_source_length=128, max_target_length=128),
    optimizer_settings=OptimizerSettings(learning_rate=4e-3),
    monitoring=MonitoringSettings(validate_every=200, text_samples=4, log_every=20),
)
"""Defaults of a tiny model on the embedded sample."""
