"""From settings to a trainer that is ready to run."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from deltalm_ds.data.batches import BatchPlan, StepReader
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.loader import StepLoader
from deltalm_ds.data.samples import SampleReader, ValidationReader
from deltalm_ds.data.schedule import RunLength
from deltalm_ds.errors import UserError
from deltalm_ds.files import write_text_atomically
from deltalm_ds.model import DeltaLM, MaskedEncoder
from deltalm_ds.model.config import PRESETS
from deltalm_ds.ops.cuda import choice
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.training.checkpoint_folder import CHECKPOINTS, CONFIG, RunState, differences, step_folders
from deltalm_ds.training.checkpoints import CheckpointStore, find_resumable
from deltalm_ds.training.deepspeed_config import DeepSpeedConfig, RequestedBatch, read_deepspeed_config
from deltalm_ds.training.distributed import Process, from_first, join_processes, on_first
from deltalm_ds.training.engine import Engine
from deltalm_ds.training.flops import Peak, peak_of
from deltalm_ds.training.models import EarlierRun, build_encoder, build_model, saver
from deltalm_ds.training.monitor import METRICS, Monitor, say
from deltalm_ds.training.optimizer import build_optimizer, check_optimizer
from deltalm_ds.training.precision import check_dtype, default_dtype
from deltalm_ds.training.sample import prepared_sample
from deltalm_ds.training.settings import PretrainSettings
from deltalm_ds.training.trainer import Trainer
from deltalm_ds.training.validation import Validator

SETTINGS = "settings.json"

# Settings that change no number of a run, or that resuming compares elsewhere.
_MAY_DIFFER = (
    *(
        "data",
        "output",
        "from_",
        "resume",
        "allow_changes",
        "stop_after",
        "plan_data",
        "deepspeed_config",
        "local_rank",
    ),
    *("preset", "layer_norm", "embedding_layer_norm", "decoder", "cross_attention_start"),
    *("data_settings", "monitoring"),
)

VERIFIED_BYTES = 1 << 28
"""Data up to this size are hashed at every start, half a second's work; `corpus --verify` hashes any size."""

_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def pretraining(settings: PretrainSettings) -> Iterator[Trainer]:
    """A trainer for `settings`, ready to run, in its process group."""
    process = join_processes()
    with _build(settings, process) as trainer:
        yield trainer
    # Not after an error: others may hang in a collective, and our exit is what ends them.
    dist.destroy_process_group()


@contextlib.contextmanager
def _build(settings: PretrainSettings, process: Process) -> Iterator[Trainer]:
    output = on_first(lambda: _output_folder(settings))
    earlier = on_first(lambda: _earlier_run(output)) if settings.resume else None
    settings = settings.complete(earlier.preset if earlier else None)
    corpus = _open_corpus(settings)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    deepspeed_config = read_deepspeed_config(
        settings.deepspeed_config,
        RequestedBatch(settings.batch_size, settings.micro_batch_size, settings.default_batch_size),
        process.world_size,
        gradient_clipping=settings.optimizer_settings.gradient_clipping,
        default_dtype=default_dtype(process.device),
    )
    assert settings.steps is not None  # complete() has filled it in
    run = RunLength(settings.steps, deepspeed_config.global_batch_size)
    reader = SampleReader(corpus, settings.data_settings, settings.seed, run)
    check_dtype(deepspeed_config.dtype, settings.deepspeed_config)
    check_optimizer(settings.optimizer_settings, process.device, offload=deepspeed_config.offload_optimizer)
    model: DeltaLM | MaskedEncoder
    if reader.trains_encoder:
        model, origin = build_encoder(settings, corpus)
    else:
        model, origin = build_model(settings, corpus, earlier)
    peak = _peak(settings, deepspeed_config, process)
    resumable = None
    if settings.resume:
        resumable = find_resumable(
            output / CHECKPOINTS,
            world_size=process.world_size,
            zero_stage=deepspeed_config.zero_stage,
            dtype=deepspeed_config.dtype,
            model_config=model.config.to_dict(),
            fingerprint=reader.fingerprint(),
            allow_changes=settings.allow_changes,
            say=say,
        )
        if resumable.needs_universal:
            deepspeed_config.resolved["checkpoint"]["load_universal"] = True
    if process.is_first:
        _describe(settings, deepspeed_config, model, corpus, origin, output, peak)
        if process.device.type == "cuda":
            say(f"kernels   {choice.description('cuda')}")
        if resumable is not None:
            _say_changes(settings, resumable.state)

    steps_on = torch.device("cpu") if deepspeed_config.offload_optimizer else process.device
    optimizer = build_optimizer(model, settings.optimizer_settings, steps_on)
    engine = Engine(model, optimizer, deepspeed_config)
    store = CheckpointStore(
        output / CHECKPOINTS, engine.deepspeed, num_kept=settings.monitoring.keep_checkpoints, say=say
    )
    state = store.load(resumable) if resumable else None
    if state is not None:
        engine.restore_hyperparameters()
    if state is not None and process.is_first:
        say(f"resuming after step {state.step:,}, at sample {state.next_position:,}")
    plan = BatchPlan(batch_size=deepspeed_config.global_batch_size)
    batches = plan.batches(
        reader.num_tokens, *((state.step, state.next_position) if state else (0, 0)), end_step=settings.steps
    )
    step_reader = StepReader(
        reader, process.rank, process.world_size, deepspeed_config.gradient_accumulation_steps
    )
    with (
        StepLoader(step_reader, batches, settings.data_settings.num_loader_workers) as loader,
        _monitor(output, state.step if state else None, process) as monitor,
    ):
        trainer = Trainer(
            settings=settings,
            output=output,
            process=process,
            engine=engine,
            model_config=model.config,
            save_model=saver(model, corpus, settings),
            groups=reader.group_names,
            fingerprint=reader.fingerprint(),
            loader=loader,
            validator=_build_validator(settings, corpus, tokenizer, process, deepspeed_config),
            store=store,
            monitor=monitor,
            peak=peak,
        )
        if state is not None:
            trainer.resume(state)
        yield trainer


def _output_folder(settings: PretrainSettings) -> Path:
    preset = settings.preset or "tiny"
    output = settings.output or Path("runs") / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not settings.resume and step_folders(output / CHECKPOINTS):
        raise UserError(f"--output {output} holds a run: go on with it by --resume, or name another folder")
    if not settings.resume and (output / METRICS).exists():
        raise UserError(
            f"--output {output} holds the record of a run without checkpoints: remove it or name another"
        )
    return output


def _earlier_run(output: Path) -> EarlierRun:
    def read(name: str) -> Any:
        path = output / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): copy it from the newest checkpoint") from error

    preset = (read(SETTINGS) or {}).get("preset")
    if preset is not None and preset not in PRESETS:
        raise UserError(f"{output / SETTINGS}: unknown preset {preset!r}")
    return EarlierRun(preset, read(CONFIG))


def _open_corpus(settings: PretrainSettings) -> Corpus:
    """The data, hashed by rank 0 unless they are large, and opened by every rank."""

    def verify() -> Path:
        path = settings.data or prepared_sample(say)
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


def _build_validator(
    settings: PretrainSettings,
    corpus: Corpus,
    tokenizer: Tokenizer,
    process: Process,
    config: DeepSpeedConfig,
) -> Validator:
    reader = ValidationReader(corpus, settings.data_settings, settings.monitoring.validation_samples)
    return Validator(
        [reader.sample(number) for number in range(len(reader))],
        reader.group_names,
        tokenizer,
        process,
        samples_at_once=config.micro_batch_size,
        num_texts=settings.monitoring.text_samples,
    )


@contextlib.contextmanager
def _monitor(output: Path, resumed_at: int | None, process: Process) -> Iterator[Monitor | None]:
    """Rank 0's monitor; None elsewhere."""
    if not process.is_first:
        yield None
        return
    monitor = Monitor(output, resumed_at)
    try:
        yield monitor
    finally:
        monitor.close()


def _peak(settings: PretrainSettings, config: DeepSpeedConfig, process: Process) -> Peak:
    if settings.monitoring.peak_tflops is not None:
        return Peak(settings.monitoring.peak_tflops, "--peak-tflops")
    return from_first(peak_of(process.device, _TORCH_DTYPES[config.dtype]))


def _describe(
    settings: PretrainSettings,
    config: DeepSpeedConfig,
    model: DeltaLM | MaskedEncoder,
    corpus: Corpus,
    origin: str,
    output: Path,
    peak: Peak,
) -> None:
    """Print what will run, and save all of it beside the checkpoints."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    tokens = sum(source.num_tokens for source in corpus.sources("train"))
    say(f"data      {corpus.path}: {tokens:,} tokens in {len(corpus.sources('train'))} sources")
    say(f"model     {num_parameters:,} parameters, {config.dtype}; {origin}")
    say(f"output    {output}  (curves: tensorboard --logdir {output})")
    say(f"peak      {peak.tflops:.4g} TFLOP/s a device, of which MFU is a share ({peak.name})")
    say("settings  " + " ".join(settings.changed_options()))
    say("DeepSpeed " + config.to_json().rstrip())
    output.mkdir(parents=True, exist_ok=True)
    config.save(output / "deepspeed.json")
    for name, content in ((SETTINGS, settings.to_dict()), (CONFIG, model.config.to_dict())):
        write_text_atomically(output / name, json.dumps(content, indent=2) + "\n")


def _say_changes(settings: PretrainSettings, state: RunState) -> None:
    """Name what the run goes on with otherwise than before; data and objectives were compared already."""
    there, here = (
        {name: value for name, value in described.items() if name not in _MAY_DIFFER}
        for described in (state.settings, settings.to_dict())
    )
    if changed := differences(there, here):
        say(f"settings changed since {state.name}: {changed}")
