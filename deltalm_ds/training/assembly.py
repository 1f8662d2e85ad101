"""A trainer put together from its parts, the same for pre-training and fine-tuning."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from deltalm_ds.data.batches import BatchPlan, StepReader
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.loader import StepLoader
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically
from deltalm_ds.model import DeltaLM, MaskedEncoder
from deltalm_ds.model.new_weights import Weights
from deltalm_ds.ops.cuda import choice
from deltalm_ds.training.checkpoint_folder import CHECKPOINTS, CONFIG, RunState, differences, step_folders
from deltalm_ds.training.checkpoints import CheckpointStore
from deltalm_ds.training.deepspeed_config import DeepSpeedConfig
from deltalm_ds.training.distributed import Process, from_first, join_processes, on_first, process_store
from deltalm_ds.training.engine import Engine
from deltalm_ds.training.flops import Peak, peak_of
from deltalm_ds.training.lease import Lease
from deltalm_ds.training.monitor import METRICS, Monitor, say
from deltalm_ds.training.optimizer import build_optimizer, check_optimizer
from deltalm_ds.training.precision import TORCH_DTYPES
from deltalm_ds.training.progress import Progress
from deltalm_ds.training.recorder import Recorder
from deltalm_ds.training.requests import Requests, refuse_stop_file
from deltalm_ds.training.resuming import claim, find_resumable
from deltalm_ds.training.run_settings import RunSettings
from deltalm_ds.training.selection import BestModels
from deltalm_ds.training.stop_signals import EXIT_STOPPED
from deltalm_ds.training.trainer import Trainer, Validates, all_skipped
from deltalm_ds.training.watchdog import Watchdog

SettingsT = TypeVar("SettingsT", bound=RunSettings)

SETTINGS = "settings.json"

# Settings that change no number of a run, or that resuming compares elsewhere.
_MAY_DIFFER = (
    *(
        "data",
        "output",
        "from_",
        "resume",
        "resume_if_begun",
        "skip_samples",
        "allow_changes",
        "stop_after",
        "plan_data",
        "deepspeed_config",
        "local_rank",
    ),
    *("preset", "layer_norm", "embedding_layer_norm", "decoder", "cross_attention_start"),
    *("data_settings", "monitoring", "spike_settings", "watchdog_settings"),
)

VERIFIED_BYTES = 1 << 28
"""Data up to this size are hashed at every start, half a second's work; `corpus --verify` hashes any size."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a kind of run brings to the trainer."""

    settings: RunSettings
    """Complete: what the user left open is filled in."""
    output: Path
    process: Process
    deepspeed_config: DeepSpeedConfig
    corpus: Corpus
    reader: SampleReader
    """Samples by position."""
    plan: BatchPlan
    """Where global batches end."""
    shares_by_tokens: bool = False
    """Whether micro-batches are equal in tokens instead of samples."""
    num_loader_workers: int
    """Processes that make batches ahead of time."""
    model: DeltaLM | MaskedEncoder
    """On the meta device, the same on every rank."""
    weights: Weights
    """What the model begins with."""
    origin: str
    """Where they come from, in words."""
    save_model: Callable[[Mapping[str, torch.Tensor], Path], None]
    """Writes trained weights as a model folder."""
    validator: Validates
    selection: BestModels | None = None
    """Keeps the best models, where a score tells which they are."""


@contextlib.contextmanager
def running(make_parts: Callable[[Process], Parts]) -> Iterator[Trainer]:
    """A trainer of these parts in its process group, which ends with the block."""
    with assembled(make_parts(join_processes())) as trainer:
        yield trainer
    # Not after an error: others may hang in a collective, and our exit is what ends them.
    dist.destroy_process_group()


@contextlib.contextmanager
def assembled(parts: Parts) -> Iterator[Trainer]:
    """A trainer of these parts, resumed from its newest checkpoint where the settings say so."""
    with (
        Watchdog(
            parts.output,
            store=process_store(),
            rank=parts.process.rank,
            world_size=parts.process.world_size,
            device=parts.process.device,
            settings=parts.settings.watchdog_settings,
        ) as watchdog,
        _watched(parts, watchdog) as trainer,
    ):
        yield trainer


@contextlib.contextmanager
def _watched(parts: Parts, watchdog: Watchdog) -> Iterator[Trainer]:
    settings, process, output, config = parts.settings, parts.process, parts.output, parts.deepspeed_config
    model = parts.model
    check_optimizer(settings.optimizer_settings, process.device, offload=config.offload_optimizer)
    peak = _peak(settings, config, process)
    resumable = None
    if settings.resume:
        resumable = find_resumable(
            output / CHECKPOINTS,
            world_size=process.world_size,
            zero_stage=config.zero_stage,
            dtype=config.dtype,
            model_config=model.config.to_dict(),
            fingerprint=parts.reader.fingerprint(),
            skipped_samples=settings.skipped_samples(),
            allow_changes=settings.allow_changes,
            say=say,
        )
        if resumable.needs_universal:
            config.resolved["checkpoint"]["load_universal"] = True
    lease = resumable.lease if resumable else claim_for_new(output / CHECKPOINTS, settings)
    if process.is_first:
        _describe(parts, peak)
        if process.device.type == "cuda":
            say(f"kernels   {choice.description('cuda')}")
        if resumable is not None:
            _say_changes(settings, resumable.state)

    steps_on = torch.device("cpu") if config.offload_optimizer else process.device
    optimizer = build_optimizer(model, settings.optimizer_settings, steps_on)
    engine = Engine(model, optimizer, config, parts.weights, output)
    parts.weights.release()
    store = CheckpointStore(
        output / CHECKPOINTS,
        engine.deepspeed,
        num_kept=settings.monitoring.keep_checkpoints,
        lease=lease,
        say=say,
    )
    state = store.load(resumable) if resumable else None
    if state is not None:
        engine.restore_hyperparameters()
    if state is not None and process.is_first:
        say(f"resuming after step {state.step:,}, at sample {state.next_position:,}")
    batches = parts.plan.batches(
        parts.reader.num_tokens,
        *((state.step, state.next_position) if state else (0, 0)),
        end_step=settings.steps,
        skipped=all_skipped(settings, state) if state else settings.skipped_samples(),
    )
    assert settings.steps is not None  # complete() has filled it in
    step_reader = StepReader(
        parts.reader,
        process.rank,
        process.world_size,
        config.gradient_accumulation_steps,
        by_tokens=parts.shares_by_tokens,
    )
    with (
        StepLoader(step_reader, batches, parts.num_loader_workers) as loader,
        _monitor(output, state, process) as monitor,
        Requests(output, process) as requests,
    ):
        trainer = Trainer(
            settings=settings,
            output=output,
            process=process,
            engine=engine,
            model_config=model.config,
            save_model=parts.save_model,
            groups=parts.reader.group_names,
            fingerprint=parts.reader.fingerprint(),
            loader=loader,
            validator=parts.validator,
            selection=parts.selection,
            store=store,
            recorder=Recorder(process, monitor, parts.reader.group_names, peak, settings.steps),
            requests=requests,
            watchdog=watchdog,
        )
        if state is not None:
            trainer.resume(state)
        yield trainer


def claim_for_new(checkpoints: Path, settings: RunSettings) -> Lease:
    """The lease of a run that begins. SystemExit (85) where it should resume what has come meanwhile."""

    def claim_and_look() -> tuple[Lease, bool]:
        lease = claim(checkpoints, say)
        return lease, settings.resume_if_begun and bool(step_folders(checkpoints))

    lease, has_begun = on_first(claim_and_look)
    if has_begun:
        if dist.get_rank() == 0:
            say("the run before this one, still alive, has just saved for the first time: start again")
        sys.exit(EXIT_STOPPED)
    return lease


def begun_or_new(settings: SettingsT) -> SettingsT:
    """The settings with --resume-if-begun decided by rank 0: --resume where there is a checkpoint.

    A run that goes on needs no start, so --from is left out of it.
    """
    if not settings.resume_if_begun:
        return settings
    assert settings.output is not None
    checkpoints = settings.output / CHECKPOINTS
    begun = on_first(lambda: bool(step_folders(checkpoints)))
    return dataclasses.replace(settings, resume=begun, from_=None if begun else settings.from_)


def new_output_folder(settings: RunSettings, name: str) -> Path:
    """Where the run goes; UserError where another one is already, or a file asks runs to stop."""
    output = settings.output or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    refuse_stop_file(output)
    if not settings.resume and not settings.resume_if_begun and step_folders(output / CHECKPOINTS):
        raise UserError(f"--output {output} holds a run: go on with it by --resume, or name another folder")
    if not settings.resume and not settings.resume_if_begun and (output / METRICS).exists():
        raise UserError(
            f"--output {output} holds the record of a run without checkpoints: remove it or name another"
        )
    return output


def open_corpus(find: Callable[[], Path]) -> Corpus:
    """The data that `find` finds on rank 0, hashed there unless they are large, and opened by every rank."""

    def verify() -> Path:
        path = find()
        corpus = Corpus.open(path)
        if corpus.num_bytes <= VERIFIED_BYTES:
            Corpus.open(path, verify=True)
        else:
            say(
                f"{path}: {corpus.num_bytes / 1e9:,.0f} GB, sizes checked; "
                f"for the hashes run python -m deltalm_ds.corpus {path} --verify"
            )
        return path

    return Corpus.open(on_first(verify))


@contextlib.contextmanager
def _monitor(output: Path, state: RunState | None, process: Process) -> Iterator[Monitor | None]:
    """Rank 0's monitor; None elsewhere."""
    if not process.is_first:
        yield None
        return
    progress = Progress() if state is None else Progress.from_state(state.monitoring["progress"])
    monitor = Monitor(output, progress.step, progress.validation_is_due)
    try:
        yield monitor
    finally:
        monitor.close()


def _peak(settings: RunSettings, config: DeepSpeedConfig, process: Process) -> Peak:
    if settings.monitoring.peak_tflops is not None:
        return Peak(settings.monitoring.peak_tflops, "--peak-tflops")
    return from_first(peak_of(process.device, TORCH_DTYPES[config.dtype]))


def _describe(parts: Parts, peak: Peak) -> None:
    """Print what will run, and save all of it beside the checkpoints."""
    settings, config, model, corpus, output = (
        *(parts.settings, parts.deepspeed_config, parts.model),
        *(parts.corpus, parts.output),
    )
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    tokens = sum(source.num_tokens for source in corpus.sources("train"))
    say(f"data      {corpus.path}: {tokens:,} tokens in {len(corpus.sources('train'))} sources")
    say(f"model     {num_parameters:,} parameters, {config.dtype}; {parts.origin}")
    say(f"output    {output}  (curves: tensorboard --logdir {output})")
    say(f"peak      {peak.tflops:.4g} TFLOP/s a device, of which MFU is a share ({peak.name})")
    say("settings  " + " ".join(settings.changed_options()))
    say("DeepSpeed " + config.to_json().rstrip())
    output.mkdir(parents=True, exist_ok=True)
    config.save(output / "deepspeed.json")
    for name, content in ((SETTINGS, settings.to_dict()), (CONFIG, model.config.to_dict())):
        write_text_atomically(output / name, json.dumps(content, indent=2) + "\n")


def _say_changes(settings: RunSettings, state: RunState) -> None:
    """Name what the run goes on with otherwise than before; data and objectives were compared already."""
    there, here = (
        {name: value for name, value in described.items() if name not in _MAY_DIFFER}
        for described in (state.settings, settings.to_dict())
    )
    if changed := differences(there, here):
        say(f"settings changed since {state.name}: {changed}")
