"""From the settings of a pre-training run to a trainer that is ready."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from deltalm_ds.data.batches import BatchPlan
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.samples import SampleReader, ValidationReader
from deltalm_ds.data.schedule import RunLength
from deltalm_ds.errors import UserError
from deltalm_ds.model.config import PRESETS
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.training.assembly import (
    SETTINGS,
    Parts,
    begun_or_new,
    new_output_folder,
    open_corpus,
    running,
)
from deltalm_ds.training.checkpoint_folder import CONFIG
from deltalm_ds.training.deepspeed_batch import RequestedBatch
from deltalm_ds.training.deepspeed_config import DeepSpeedConfig, read_deepspeed_config
from deltalm_ds.training.distributed import Process, on_first
from deltalm_ds.training.models import EarlierRun, build_encoder, build_model, saver
from deltalm_ds.training.monitor import say
from deltalm_ds.training.precision import check_dtype, default_dtype
from deltalm_ds.training.sample import prepared_sample
from deltalm_ds.training.settings import PretrainSettings
from deltalm_ds.training.trainer import Trainer
from deltalm_ds.training.validation import Validator


@contextlib.contextmanager
def pretraining(settings: PretrainSettings) -> Iterator[Trainer]:
    """A trainer for `settings`, ready to run, in its process group."""
    with running(partial(_parts, settings)) as trainer:
        yield trainer


def _parts(settings: PretrainSettings, process: Process) -> Parts:
    settings = begun_or_new(settings)
    output = on_first(lambda: new_output_folder(settings, settings.preset or "tiny"))
    earlier = on_first(lambda: _earlier_run(output)) if settings.resume else None
    settings = settings.complete(earlier.preset if earlier else None)
    corpus = open_corpus(lambda: settings.data or prepared_sample(say))
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    config = read_deepspeed_config(
        settings.deepspeed_config,
        RequestedBatch(settings.batch_size, settings.micro_batch_size, settings.default_batch_size),
        process.world_size,
        gradient_clipping=settings.optimizer_settings.gradient_clipping,
        default_dtype=default_dtype(process.device),
    )
    assert settings.steps is not None  # complete() has filled it in
    run = RunLength(settings.steps, config.global_batch_size)
    reader = SampleReader(corpus, settings.data_settings, settings.seed, run)
    check_dtype(config.dtype, settings.deepspeed_config)
    if reader.trains_encoder:
        start = build_encoder(settings, corpus)
    else:
        start = build_model(settings, corpus, earlier)
    return Parts(
        settings=settings,
        output=output,
        process=process,
        deepspeed_config=config,
        corpus=corpus,
        reader=reader,
        plan=BatchPlan(batch_size=config.global_batch_size),
        num_loader_workers=settings.data_settings.num_loader_workers,
        model=start.model,
        weights=start.weights,
        origin=start.origin,
        save_model=saver(start.model, corpus, settings),
        validator=_build_validator(settings, corpus, tokenizer, process, config),
    )


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
