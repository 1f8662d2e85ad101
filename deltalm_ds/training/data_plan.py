"""What a run would read, without making a model or joining processes: `pretrain --plan-data`."""

from __future__ import annotations

import os

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.plan import describe_plan
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.schedule import RunLength
from deltalm_ds.training.deepspeed_config import RequestedBatch, read_deepspeed_config
from deltalm_ds.training.sample import prepared_sample
from deltalm_ds.training.settings import PretrainSettings


def data_plan(settings: PretrainSettings) -> str:
    """The table of the epochs that every source gets over the run that `settings` describe."""
    settings = settings.complete()
    config = read_deepspeed_config(
        settings.deepspeed_config,
        RequestedBatch(settings.batch_size, settings.micro_batch_size, settings.default_batch_size),
        int(os.environ.get("WORLD_SIZE", "1")),
        gradient_clipping=settings.optimizer_settings.gradient_clipping,
        default_dtype="fp32",
    )
    corpus = Corpus.open(settings.data or prepared_sample(lambda _: None))
    assert settings.steps is not None  # complete() has filled it in
    run = RunLength(settings.steps, config.global_batch_size)
    return describe_plan(SampleReader(corpus, settings.data_settings, settings.seed, run), run)
