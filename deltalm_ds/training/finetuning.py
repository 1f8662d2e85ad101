"""From the settings of a fine-tuning run to a trainer that is ready."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import deltalm_ds
from deltalm_ds.data.batches import BatchPlan
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.mixture import BLOCK_SIZE
from deltalm_ds.data.samples import SampleReader, ValidationReader
from deltalm_ds.data.schedule import OrderForm
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.downstream.reading import read_examples
from deltalm_ds.downstream.registry import find_task
from deltalm_ds.downstream.task import Task
from deltalm_ds.downstream.tuning_data import (
    read_tags,
    read_validation,
    target_languages,
    write_tuning_data,
)
from deltalm_ds.model import Recomputation
from deltalm_ds.text.tokenizer import Tokenizer, train_tokenizer
from deltalm_ds.training.assembly import Parts, begun_or_new, new_output_folder, open_corpus, running
from deltalm_ds.training.checkpoint_folder import START
from deltalm_ds.training.deepspeed_batch import RequestedBatch
from deltalm_ds.training.deepspeed_config import DeepSpeedConfig, read_deepspeed_config
from deltalm_ds.training.distributed import Process, on_first
from deltalm_ds.training.models import check_positions, model_writer
from deltalm_ds.training.monitor import say
from deltalm_ds.training.precision import check_dtype, default_dtype
from deltalm_ds.training.selection import BestModels
from deltalm_ds.training.task_validation import TaskValidator
from deltalm_ds.training.trainer import Trainer
from deltalm_ds.training.tuned_models import (
    StartingPoint,
    build_start,
    find_start,
    freeze,
    on_demand,
    reopen_start,
    tuned_vocabulary,
)
from deltalm_ds.training.tuning_settings import FinetuneSettings
from deltalm_ds.training.validation import Validator
from deltalm_ds.weights import Description, TaskDescription

DATA, BEST = "data", "best"
"""Folders in a run's output: its data, the models of its best validations."""

_TOKENIZER_LINES = 2_000_000


@contextlib.contextmanager
def finetuning(settings: FinetuneSettings) -> Iterator[Trainer]:
    """A trainer for `settings`, ready to run, in its process group."""
    with running(partial(_parts, settings)) as trainer:
        yield trainer


def _parts(settings: FinetuneSettings, process: Process) -> Parts:
    task = find_task(settings.task)
    settings = begun_or_new(settings)
    output = on_first(lambda: new_output_folder(settings, settings.task))
    start = None if settings.resume else on_first(lambda: _write_data(settings, task, output))
    corpus = open_corpus(lambda: output / DATA)
    tags = read_tags(output / DATA)
    num_examples = sum(source.dataset.num_documents for source in corpus.sources("train"))
    settings = settings.complete(task, num_examples)
    config = _read_deepspeed_config(settings, process)
    assert settings.max_source_length is not None
    assert settings.max_target_length is not None
    data_settings = DataSettings(
        pair_objective="translation",
        language_exponent=1 / settings.temperature,
        max_source_length=max(settings.max_source_length, 16),
        max_target_length=max(settings.max_target_length, 16),
    )
    form = OrderForm(block_size=min(BLOCK_SIZE, num_examples), by_items=True)
    reader = SampleReader(corpus, data_settings, settings.seed, form=form)
    settings = _with_steps(settings, corpus, process)
    if start is None:
        starting = reopen_start(output / START, settings)
    else:
        starting = build_start(settings, start, corpus, tags)
    model, origin = starting.model, starting.origin
    check_positions(model.config, data_settings.max_source_length, data_settings.max_target_length)
    model.recomputation = Recomputation(settings.checkpoint_every_n_layers)
    description = _describe(settings, task, corpus, tags)
    save_model = model_writer(model.config, description)
    if start is not None:
        on_first(lambda: save_model(on_demand(starting), output / START))
    assert settings.freeze is not None
    if frozen := freeze(model, settings.freeze):
        num = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
        origin += (
            f"\n{num:,} parameters stay as they are: {', '.join(settings.freeze)} ({len(frozen)} tensors)"
        )
    examples = read_validation(output / DATA)
    return Parts(
        settings=settings,
        output=output,
        process=process,
        deepspeed_config=config,
        corpus=corpus,
        reader=reader,
        plan=BatchPlan(batch_tokens=settings.batch_tokens),
        shares_by_tokens=True,
        num_loader_workers=settings.num_loader_workers,
        model=model,
        weights=starting.weights,
        origin=origin,
        save_model=save_model,
        validator=_build_validator(settings, task, corpus, data_settings, tags, examples, process),
        selection=_selection(settings, output) if examples else None,
    )


def _write_data(settings: FinetuneSettings, task: Task, output: Path) -> StartingPoint:
    """Read the task's data and write them as tokens; runs on rank 0."""
    train = partial(read_examples, settings.data, task, "train", settings.reading)
    validation = _validation_examples(settings, task)
    languages = target_languages(itertools.chain(train(), validation))
    with tempfile.TemporaryDirectory() as aside:
        if settings.from_ is None and settings.tokenizer is None:
            trained = Path(aside) / "trained.model"
            trained.write_bytes(_trained_tokenizer(settings, train()))
            settings = dataclasses.replace(settings, tokenizer=trained)
        start = find_start(settings)
        model, vocabulary, tags = tuned_vocabulary(start, languages if task.language_tags else None, settings)
        tokenizer = Path(aside) / "tuned.model"
        tokenizer.write_bytes(model)
        if task.language_tags:
            say("tags      " + "  ".join(f"{language} {tag}" for language, tag in tags.items()))
        write_tuning_data(
            output / DATA,
            train,
            validation,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            tags=tags,
            max_source_length=settings.max_source_length or task.max_source_length,
            max_target_length=settings.max_target_length or task.max_target_length,
            say=say,
        )
    return start


def _validation_examples(settings: FinetuneSettings, task: Task) -> list[DownstreamExample]:
    """The first examples of every direction, as many as --validation-samples."""
    paths = settings.validation_data or tuple(path for path in settings.data if path.is_dir())
    if not paths:
        say("no validation data: the last model is kept, whatever it is worth; give --validation-data")
        return []
    kept: dict[str, list[DownstreamExample]] = {}
    for example in read_examples(paths, task, "valid", settings.reading):
        of_direction = kept.setdefault(example.direction, [])
        if len(of_direction) < settings.monitoring.validation_samples:
            of_direction.append(example)
    return [example for of_direction in kept.values() for example in of_direction]


def _trained_tokenizer(settings: FinetuneSettings, examples: Iterator[DownstreamExample]) -> bytes:
    lines = (line for example in examples for line in (example.source, *example.targets))
    say(f"training a tokenizer of at most {settings.vocabulary_size:,} pieces on the training data")
    sample = itertools.islice(lines, _TOKENIZER_LINES)
    return train_tokenizer(sample, settings.vocabulary_size, 1.0, or_fewer=True)


def _read_deepspeed_config(settings: FinetuneSettings, process: Process) -> DeepSpeedConfig:
    """Batches are of tokens, so that DeepSpeed's numbers of samples stand for micro-batches."""
    assert settings.batch_tokens is not None
    share = math.ceil(settings.batch_tokens / process.world_size)
    num_micro_batches = math.ceil(share / settings.micro_batch_tokens)
    config = read_deepspeed_config(
        settings.deepspeed_config,
        RequestedBatch(num_micro_batches * process.world_size, 1),
        process.world_size,
        gradient_clipping=settings.optimizer_settings.gradient_clipping,
        default_dtype=default_dtype(process.device),
    )
    check_dtype(config.dtype, settings.deepspeed_config)
    return config


def _with_steps(settings: FinetuneSettings, corpus: Corpus, process: Process) -> FinetuneSettings:
    """The same with the steps that --epochs asks for."""
    tokens = sum(source.num_tokens for source in corpus.sources("train"))
    assert settings.batch_tokens is not None
    per_epoch = tokens / settings.batch_tokens
    if process.is_first:
        say(f"an epoch is about {max(per_epoch, 1):,.0f} steps of {settings.batch_tokens:,} tokens")
    if settings.epochs is None:
        return settings
    return dataclasses.replace(settings, epochs=None, steps=math.ceil(settings.epochs * per_epoch))


def _selection(settings: FinetuneSettings, output: Path) -> BestModels:
    assert settings.metric is not None
    return BestModels(
        output / BEST, settings.metric, num_kept=settings.average, patience=settings.patience or None
    )


def _build_validator(
    settings: FinetuneSettings,
    task: Task,
    corpus: Corpus,
    data_settings: DataSettings,
    tags: dict[str, int],
    examples: list[DownstreamExample],
    process: Process,
) -> TaskValidator:
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    reader = ValidationReader(corpus, data_settings, settings.monitoring.validation_samples)
    losses = Validator(
        [reader.sample(number) for number in range(len(reader))],
        reader.group_names,
        tokenizer,
        process,
        samples_at_once=32,
        num_texts=0,
    )
    assert settings.max_source_length is not None
    assert settings.max_target_length is not None
    encoder = TextEncoder(
        tokenizer,
        tags,
        max_source_length=settings.max_source_length,
        max_target_length=settings.max_target_length,
    )
    chosen = [] if settings.metric in (None, "loss") else [settings.metric]
    metrics = list(dict.fromkeys([*chosen, task.metric, *task.other_metrics]))
    return TaskValidator(
        losses,
        examples,
        encoder,
        settings.search_of(task),
        metrics,
        process,
        batch_tokens=settings.micro_batch_tokens,
        num_texts=settings.monitoring.text_samples,
        own_language_only=task.restrict_output_to_language,
    )


def _describe(settings: FinetuneSettings, task: Task, corpus: Corpus, tags: dict[str, int]) -> Description:
    directions = [source.languages for source in (*corpus.sources("train"), *corpus.sources("valid"))]
    assert settings.max_source_length is not None
    assert settings.max_target_length is not None
    assert settings.metric is not None
    pairs: Any = tuple(dict.fromkeys(directions))
    return Description(
        tokenizer=corpus.tokenizer_path,
        vocabulary=corpus.vocabulary,
        languages=tuple(sorted({language for direction in directions for language in direction})),
        task=TaskDescription(
            name=task.name,
            directions=pairs,
            tags=tags,
            max_source_length=settings.max_source_length,
            max_target_length=settings.max_target_length,
            search=dataclasses.asdict(settings.search_of(task)),
            metric=settings.metric,
        ),
        training={
            "command": "finetune",
            "settings": settings.to_dict(),
            "data": corpus.fingerprint,
            "versions": {"deltalm_ds": deltalm_ds.__version__, "torch": torch.__version__},
        },
    )
