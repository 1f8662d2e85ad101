"""The options of `python -m deltalm_ds.plan`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.activations import Way
from deltalm_ds.planning.hardware import DEVICES, Device, DeviceName
from deltalm_ds.planning.samples import SampleKind, pretraining_kinds
from deltalm_ds.planning.shapes import ModelShape, shape_of
from deltalm_ds.planning.timing import Assumptions
from deltalm_ds.planning.zero import Dtype
from deltalm_ds.training.settings import PresetName


@dataclass(frozen=True, kw_only=True)
class AssumedSettings:
    """What no data sheet says. Assumed, not measured; put your own measurements in their place."""

    mfu: float = Assumptions.mfu
    """Share of the peak that forward and backward passes reach, waiting for nothing."""
    memory_efficiency: float = Assumptions.memory_efficiency
    """Share of the memory's bandwidth that the optimizer's step reaches."""
    link_efficiency: float = Assumptions.link_efficiency
    """Share of a link's bandwidth that collectives reach."""
    reserve: float = 0.1
    """Share of a device's memory for what is not planned: CUDA's context, NCCL, holes of the allocator."""

    def __post_init__(self) -> None:
        for name in ("mfu", "memory_efficiency", "link_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(
                    f"--{name.replace('_', '-')} must lie in (0, 1], not at {getattr(self, name)}"
                )
        if not 0 <= self.reserve < 1:
            raise UserError(f"--reserve must lie in [0, 1), not at {self.reserve}")


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Plan a pre-training run: memory, communication, time, and a DeepSpeed configuration. Runs nothing.

    Prints, for the devices named, every ZeRO stage with and without activation checkpointing; the best of
    them; and the same run on 1 to 1,024 devices. docs/planning.md has the formulas.
    """

    model: PresetName = "base"
    """Preset of the model."""
    nodes: int = 1
    """Nodes of the cluster."""
    gpus_per_node: int = 8
    """Devices, and so processes, of each node."""
    gpu: DeviceName = "h200"
    """Kind of device; cpu: processes on a CPU, in fp32 over gloo, memory and communication only."""
    network_gbps: float | None = None
    """Gbit/s between nodes, for each device, in each direction. Default: of that generation's DGX."""
    batch_size: int = 2048
    """Samples of a global batch, over all devices."""
    steps: int = 600_000
    """Optimizer steps of the run."""
    text_length: int = 512
    """Tokens of text in a sample, which span corruption parts into source and target."""
    source_length: int | None = None
    """Tokens that the encoder reads, with --target-length in place of --text-length."""
    target_length: int | None = None
    """Tokens that the decoder reads."""
    vocabulary_rows: int = DeltaLMConfig.vocabulary_rows
    """Rows of the token table."""
    kernels: Literal["torch", "kernels"] = "torch"
    """Who computes on a GPU: torch, which runs by default where `make gpu` has measured nothing, or our CUDA
    kernels, which keep fewer activations."""
    write: Path | None = None
    """File to write the recommended DeepSpeed configuration to."""
    picture: Path | None = None
    """File to draw the plan into, .svg or .png."""
    assumed: AssumedSettings = field(default_factory=AssumedSettings)

    def __post_init__(self) -> None:
        for name in ("nodes", "gpus_per_node", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        lengths = (self.source_length, self.target_length)
        if (None in lengths) != (lengths == (None, None)):
            raise UserError("--source-length and --target-length belong together: give both, or neither")
        longest = DeltaLMConfig.max_positions
        for name in ("text_length", "source_length", "target_length"):
            value = getattr(self, name)
            if value is not None and not 2 <= value <= longest:
                raise UserError(
                    f"--{name.replace('_', '-')} must lie in 2..{longest}, the model's positions, not {value}"
                )
        if self.network_gbps is not None and self.network_gbps <= 0:
            raise UserError(f"--network-gbps must be above 0, not {self.network_gbps}")
        if self.network_gbps is not None and DEVICES[self.gpu].is_cpu:
            raise UserError("--network-gbps is for times, and of --gpu cpu none are planned: leave it out")
        for option, path in (("--write", self.write), ("--picture", self.picture)):
            if path is not None and not path.parent.is_dir():
                raise UserError(f"{option} {path}: there is no folder {path.parent}; make it first")
        if self.picture is not None and self.picture.suffix not in (".svg", ".png"):
            raise UserError(f"--picture {self.picture} must end with .svg or .png")
        if self.picture is not None and DEVICES[self.gpu].is_cpu:
            raise UserError("--picture shows times, and of --gpu cpu none are planned: leave it out")
        if self.num_ranks > self.batch_size:
            raise UserError(
                f"{self.num_ranks} devices for a global batch of {self.batch_size} samples: use fewer "
                "devices, or raise --batch-size"
            )

    @property
    def num_ranks(self) -> int:
        """Processes in all."""
        return self.nodes * self.gpus_per_node

    @property
    def device(self) -> Device:
        """With the network of the command line."""
        device = DEVICES[self.gpu]
        return device.with_network(self.network_gbps) if self.network_gbps else device

    @property
    def dtype(self) -> Dtype:
        """That the trainer takes by default on such a device."""
        return "fp32" if self.device.is_cpu else "bf16"

    @property
    def way(self) -> Way:
        """Who computes."""
        return "cpu" if self.device.is_cpu else self.kernels

    @property
    def shape(self) -> ModelShape:
        """Of the model."""
        special = {"mask_id": 0, "first_sentinel_id": 0, "num_sentinels": 0}  # of no account here
        config = DeltaLMConfig.preset(self.model, vocabulary_rows=self.vocabulary_rows, **special)
        return shape_of(config)

    @property
    def kinds(self) -> tuple[SampleKind, ...]:
        """Of samples."""
        if self.source_length is not None and self.target_length is not None:
            return (SampleKind(1.0, self.source_length, self.target_length),)
        return pretraining_kinds(self.text_length)

    @property
    def assumptions(self) -> Assumptions:
        """For times."""
        return Assumptions(
            mfu=self.assumed.mfu,
            memory_efficiency=self.assumed.memory_efficiency,
            link_efficiency=self.assumed.link_efficiency,
        )
