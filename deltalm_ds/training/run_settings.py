"""What every run has, whatever it trains: the options that pre-training and fine-tuning share."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from deltalm_ds.errors import UserError
from deltalm_ds.ops import SmoothingForm
from deltalm_ds.training.optimizer import OptimizerSettings
from deltalm_ds.training.spike_settings import SpikeSettings
from deltalm_ds.training.watchdog_settings import WatchdogSettings


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
class RunSettings:
    """What the trainer reads. Impossible values are a UserError at construction."""

    output: Path | None = None
    """Folder for checkpoints, records and TensorBoard. Default: a folder in runs/ named by date and time."""
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Weights to start a new run from: XLM-R or InfoXLM (Hugging Face folder or fairseq file), a released or
    fine-tuned DeltaLM, or a model of ours."""
    resume: bool = False
    """Go on with the run in --output, from its newest whole checkpoint."""
    resume_if_begun: bool = False
    """Go on with the run in --output if it has a checkpoint, else begin it: for jobs that are requeued."""
    skip_samples: tuple[str, ...] = ()
    """Ranges of samples never to train on, FIRST:END each, as the lines about skipped steps name them. A run
    that has trained on them goes back to its newest checkpoint from before."""
    allow_changes: bool = False
    """Resume even though data, tokenizer, objectives or mixture are not what the run began with."""
    steps: int | None = None
    """Optimizer steps of the whole run."""
    stop_after: int | None = None
    """Save and end after this many steps in this process, to go on later with --resume; schedules keep
    following --steps."""
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
    deepspeed_config: Path = Path("ds_configs/zero2.json")
    """DeepSpeed's JSON configuration."""
    local_rank: int = -1
    """For the deepspeed launcher, which gives it; nothing to set by hand."""
    optimizer_settings: OptimizerSettings = field(default_factory=OptimizerSettings)
    monitoring: MonitoringSettings = field(default_factory=MonitoringSettings)
    spike_settings: SpikeSettings = field(default_factory=SpikeSettings)
    watchdog_settings: WatchdogSettings = field(default_factory=WatchdogSettings)

    def __post_init__(self) -> None:
        self.skipped_samples()
        for name in ("steps", "stop_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2^32), not {self.seed}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label-smoothing must lie in [0, 1), not {self.label_smoothing}")
        if self.resume and self.output is None:
            raise UserError("--resume needs --output, the folder of the run to go on with")
        if self.resume_if_begun and self.output is None:
            raise UserError("--resume-if-begun needs --output, the folder of the run")
        if self.resume and self.from_ is not None:
            raise UserError("--from starts a new run and --resume goes on with one: give one of them")

    def skipped_samples(self) -> tuple[tuple[int, int], ...]:
        """First and end of each range in `skip_samples`, in ascending order."""
        ranges = []
        for text in self.skip_samples:
            match = re.fullmatch(r"(\d+):(\d+)", text)
            if match is None or int(match[1]) >= int(match[2]):
                raise UserError(f"--skip-samples takes FIRST:END with FIRST below END, not {text!r}")
            ranges.append((int(match[1]), int(match[2])))
        return tuple(sorted(ranges))

    def changed_options(self) -> list[str]:
        """The command line's options that are not at their defaults, "--name value" each."""

        def changed(settings: Any) -> list[str]:
            options = []
            for option in dataclasses.fields(settings):
                value = getattr(settings, option.name)
                if dataclasses.is_dataclass(value):
                    options += changed(value)
                elif value != option.default:
                    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
                    options.append(f"--{option.name.strip('_').replace('_', '-')} {shown}")
            return options

        return changed(self)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: plain(item) for name, item in value.items()}
            if isinstance(value, (tuple, list)):
                return [plain(item) for item in value]
            return str(value) if isinstance(value, Path) else value

        return plain(dataclasses.asdict(self))
