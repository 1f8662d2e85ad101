"""The model of a run, from new weights or given ones, and how it is saved in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig, MaskedEncoder, Recomputation
from deltalm_ds.model.masked_encoder import encoder_config
from deltalm_ds.model.new_weights import NewWeights, Weights
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.training.settings import PresetName, PretrainSettings
from deltalm_ds.weights import Description, load_pretrained, save_encoder, save_own


@dataclass(frozen=True)
class EarlierRun:
    """What the run to resume says of itself in its folder; its checkpoint is compared with it later."""

    preset: PresetName | None
    model_config: dict[str, Any] | None


@dataclass(frozen=True)
class StartingModel:
    """A model and what it begins with, which every rank holds no more of than it needs."""

    model: DeltaLM | MaskedEncoder
    """On the meta device, the same on every rank: the engine gives it its weights."""
    weights: Weights
    origin: str
    """Where they come from, in words."""


def build_model(settings: PretrainSettings, corpus: Corpus, earlier: EarlierRun | None) -> StartingModel:
    """The model of a pre-training run.

    A resumed run's sizes are its own, whatever they came from, unless the user names another preset.
    """
    of_data: dict[str, Any] = {**vocabulary_fields(corpus.vocabulary), "dropout": settings.dropout}
    if settings.layer_norm == "pre":
        of_data["pre_layer_norm"] = True
    if settings.embedding_layer_norm is not None:
        of_data["embedding_layer_norm"] = settings.embedding_layer_norm
    if settings.decoder is not None:
        of_data["decoder"] = settings.decoder
    assert settings.preset is not None  # complete() has filled it in
    if earlier is not None and earlier.model_config is not None and settings.preset == earlier.preset:
        config = dataclasses.replace(DeltaLMConfig.from_dict(earlier.model_config), **of_data)
        start = new_model(DeltaLM, config, settings.seed, "weights of the checkpoint")
    elif settings.from_ is None:
        start = new_model(DeltaLM, DeltaLMConfig.preset(settings.preset, **of_data), settings.seed)
    else:
        loaded = load_pretrained(
            settings.from_,
            seed=settings.seed,
            cross_attention_start=settings.cross_attention_start,
            **of_data,
        )
        start = stored_model(loaded.config, loaded.weights, str(loaded.report))
    return _finished(start, settings)


def build_encoder(settings: PretrainSettings, corpus: Corpus) -> StartingModel:
    """The encoder by itself."""
    assert settings.preset is not None  # complete() has filled it in
    if settings.from_ is not None:
        raise UserError("mlm and tlm train an encoder from new weights: leave --from out")
    if settings.layer_norm == "pre" or settings.embedding_layer_norm is False:
        raise UserError(
            "mlm and tlm train an encoder with XLM-R's LayerNorms, after the embeddings and after each "
            "sub-layer: use --layer-norm post, and leave --embedding-layer-norm out"
        )
    if settings.decoder is not None:
        raise UserError("mlm and tlm train an encoder by itself: leave --decoder out")
    config = encoder_config(settings.preset, corpus.vocabulary.mask_id, dropout=settings.dropout)
    origin = "weights of the checkpoint" if settings.resume else None
    return _finished(new_model(MaskedEncoder, config, settings.seed, origin), settings)


def _finished(start: StartingModel, settings: PretrainSettings) -> StartingModel:
    lengths = settings.data_settings.max_source_length, settings.data_settings.max_target_length
    check_positions(start.model.config, *lengths)
    start.model.recomputation = Recomputation(settings.checkpoint_every_n_layers)
    return start


def new_model(
    kind: type[DeltaLM] | type[MaskedEncoder], config: DeltaLMConfig, seed: int, origin: str | None = None
) -> StartingModel:
    """A model of new weights, which `seed` names."""
    with torch.device("meta"):
        model = kind(config)
    return StartingModel(model, NewWeights(model, seed), origin or f"new weights, seed {seed}")


def stored_model(config: DeltaLMConfig, weights: Weights, origin: str) -> StartingModel:
    """A DeltaLM of given weights."""
    with torch.device("meta"):
        return StartingModel(DeltaLM(config), weights, origin)


def vocabulary_fields(vocabulary: Vocabulary) -> dict[str, int]:
    """The fields of DeltaLMConfig that follow from a vocabulary."""
    return {
        "vocabulary_rows": vocabulary.num_rows,
        "mask_id": vocabulary.mask_id,
        "first_sentinel_id": vocabulary.first_sentinel_id,
        "num_sentinels": vocabulary.num_sentinels,
    }


def check_positions(config: DeltaLMConfig, max_source_length: int, max_target_length: int) -> None:
    """UserError where samples would be longer than the model has positions."""
    longest = max(max_source_length, max_target_length)
    if longest > config.max_positions:
        raise UserError(
            f"the model has {config.max_positions} positions: lower --max-source-length and "
            f"--max-target-length to it (now {longest})"
        )


def saver(
    model: DeltaLM | MaskedEncoder, corpus: Corpus, settings: PretrainSettings
) -> Callable[[Mapping[str, torch.Tensor], Path], None]:
    """What writes trained weights as a model folder of the model's kind."""
    config, tokenizer = model.config, corpus.tokenizer_path
    if isinstance(model, MaskedEncoder):
        return lambda weights, folder: save_encoder(config, weights, tokenizer, folder)
    languages = {language for source in corpus.sources("train") for language in source.languages}
    description = Description(
        tokenizer=tokenizer,
        vocabulary=corpus.vocabulary,
        languages=tuple(sorted(languages)),
        training={"command": "pretrain", "settings": settings.to_dict(), "data": corpus.fingerprint},
    )
    return model_writer(config, description)


def model_writer(
    config: DeltaLMConfig, description: Description
) -> Callable[[Mapping[str, torch.Tensor], Path], None]:
    """What writes trained weights as a model folder of this description."""
    return lambda weights, folder: save_own(_Trained(config, weights), folder, description)


@dataclass
class _Trained:
    """A model as saving wants it."""

    config: DeltaLMConfig
    weights: Mapping[str, torch.Tensor]

    def state_dict(self) -> Mapping[str, Any]:
        return self.weights
