"""The settings of a pre-training run; the command line of `pretrain` is made from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from deltalm_ds.data.settings import DataSettings
from deltalm_ds.errors import UserError
from deltalm_ds.model.config import DecoderForm
from deltalm_ds.ops import SmoothingForm
from deltalm_ds.training.optimizer import OptimizerSettings
from deltalm_ds.weights import CrossAttentionStart

PresetName = Literal["tiny", "small", "base", "large"]


@dataclass(frozen=True)
class PresetDefaults:
    """What a run takes where the user says nothing."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int | None
    """None: a tenth of the run."""


# The paper's run for base and large, as far as it is known; the small ones are for trying out.
_DEFAULTS: dict[str, PresetDefaults] = {
    "tiny": PresetDefaults(2_000, 16, 1e-3, None),
    "small": PresetDefaults(20_000, 128, 5e-4, None),
    "base": PresetDefaults(600_000, 2048, 2e-4, 10_000),
    "large": PresetDefaults(600_000, 2048, 2e-4, 10_000),
}


@dataclass(frozen=True, kw_only=True)
class MonitoringSettings:
    """What is recorded and saved, and how often."""

    log_every: int = 10
    """Optimizer steps between two records of the progress line, TensorBoard and metrics.jsonl."""
    validate_every: int = 1_000
    """Optimizer steps between two validations; the last step is always validated, and with 0 it alone."""
    validation_samples: int = 64
    """Validation samples of each source."""
    text_samples: int = 3
    """Validation samples that are shown as text, their spans, masks or translation by the model."""
    save_every: int = 1_000
    """Optimizer steps between two checkpoints; the last step is always saved."""
    keep_checkpoints: int = 3
    """Newest checkpoints that are kept."""
    peak_tflops: float | None = None
    """Peak TFLOP/s of one device, for the model FLOP utilisation. Default: the data sheet's number of a known
    GPU, else that of a matrix product measured at the start."""

    def __post_init__(self) -> None:
        for name, least in (
            ("log_every", 1),
            ("validate_every", 0),
            ("validation_samples", 1),
            ("text_samples", 0),
            ("save_every", 1),
            ("keep_checkpoints", 1),
        ):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise UserError(f"--{option} must be at least {least}, not {getattr(self, name)}")
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise UserError(f"--peak-tflops must be above 0, not {self.peak_tflops}")


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """Pre-train DeltaLM on a folder that `python -m deltalm_ds.prepare` made.

    Without --data a small sample corpus is made and a tiny model trained on it, with other defaults (printed
    at the start), for a run of minutes. Start it with `deepspeed`, `torchrun`, `mpirun` or plain `python`.
    """

    data: Path | None = None
    """Prepared folder. Default: the embedded sample, prepared on first use."""
    output: Path | None = None
    """Folder for checkpoints, records and TensorBoard. Default: runs/PRESET-DATE-TIME."""
    preset: PresetName | None = None
    """Size of the model, and the defaults of the run. Default: tiny. With --from the sizes come from the
    weights; with --resume both are the run's."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Weights to start a new run from: XLM-R or InfoXLM (Hugging Face folder or fairseq file), a released or
    fine-tuned DeltaLM, or a model of ours."""
    resume: bool = False
    """Go on with the run in --output, from its newest whole checkpoint."""
    allow_changes: bool = False
    """Resume even though data, tokenizer, objectives or mixture are not what the run began with."""
    plan_data: bool = False
    """Print how often the run will read each language and pair, and end."""
    steps: int | None = None
    """Optimizer steps of the whole run. Default by preset: 600,000 for base and large, 20,000 small, 2,000
    tiny."""
    stop_after: int | None = None
    """Save and end after this many steps in this process, to go on later with --resume; schedules keep
    following --steps."""
    batch_size: int | None = None
    """Samples of a global batch, over all processes. Default by preset: 2,048 for base and large, 128 small,
    16 tiny."""
    micro_batch_size: int | None = None
    """Samples a process computes at once; the rest of its share is accumulated. Default: 8."""
    seed: int = 1
    """Names every random draw of the run: initial weights, order, masks, dropout."""
    dropout: float = 0.1
    """Share of features dropped after the embeddings and every sub-layer."""
    label_smoothing: float = 0.0
    """Probability given to other pieces than the target."""
    smoothing_form: SmoothingForm = "fairseq"
    """fairseq: eps / (rows - 1) to every other row; uniform: eps / rows to every row."""
    checkpoint_every_n_layers: int = 0
    """Keep only the input of every n-th layer and compute it again in the backward pass; 0: of none."""
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
    deepspeed_config: Path = Path("ds_configs/zero2.json")
    """DeepSpeed's JSON configuration."""
    local_rank: int = -1
    """For the deepspeed launcher, which gives it; nothing to set by hand."""
    data_settings: DataSettings = field(default_factory=DataSettings)
    optimizer_settings: OptimizerSettings = field(default_factory=OptimizerSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batch_size", "stop_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2^32), not {self.seed}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label-smoothing must lie in [0, 1), not {self.label_smoothing}")
        if self.resume and self.output is None:
            raise UserError("--resume needs --output, the folder of the run to go on with")
        if self.resume and self.from_ is not None:
            raise UserError("--from starts a new run and --resume goes on with one: give one of them")
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

    def changed_options(self) -> list[str]:
        """The command line's options that are not at their defaults, "--name value" each."""
        defaults = PretrainSettings().to_dict()

        def changed(here: dict[str, Any], default: dict[str, Any]) -> list[str]:
            options = []
            for name, value in here.items():
                if isinstance(value, dict):
                    options += changed(value, default[name])
                elif value != default[name]:
                    options.append(f"--{name.strip('_').replace('_', '-')} {value}")
            return options

        return changed(self.to_dict(), defaults)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            return str(value) if isinstance(value, Path) else value

        return plain(dataclasses.asdict(self))


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
