"""Probing weights from beginning to end: read, measure, judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from deltalm_ds.data.objectives import SpanCorruption
from deltalm_ds.downstream.plain_text import read_text
from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.probing.candidates import feed_forward_orders, sentinel_places
from deltalm_ds.probing.losses import Reading, measure, text_windows
from deltalm_ds.probing.verdicts import Verdict, verdicts
from deltalm_ds.tables import format_table
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.weights import load_pretrained, read_description
from deltalm_ds.weights.layouts import read_source

_DENSITY, _MEAN_SPAN_LENGTH = 0.15, 3.0  # of DeltaLM's pre-training

_NUM_SENTINELS = 100


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Tell how released weights are to be read, by their loss on text: where the sentinels are, which of the
    decoder's two feed-forward layers runs first, and in which form text was corrupted in pre-training.
    """

    weights: tyro.conf.Positional[Path]
    """A DeltaLM that is only pre-trained: a file as released, or a model folder."""
    text: tuple[Path, ...]
    """Files of plain text, UTF-8, a paragraph a line; also .gz, .xz, .zst, and .zip of such."""
    tokenizer: Path | None = None
    """Its SentencePiece model; a model folder has its own."""
    heads: int | None = None
    """Attention heads, for weights of no published size that do not say it."""
    sentinels: int | None = None
    """How many sentinels there are; by default as many as the weights show, or 100."""
    samples: int = 32
    """Windows of text, at most."""
    window: int = 512
    """Tokens of a window, at most."""
    seed: int = 1
    """Names the masks."""
    json: bool = False
    """Print JSON in place of the table."""

    def __post_init__(self) -> None:
        for name, least in (("heads", 1), ("sentinels", 1), ("samples", 1), ("window", 8)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} must be {least} or more, not {value}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2^32), not {self.seed}")


def probe(settings: ProbeSettings, say: Callable[[str], object]) -> None:
    """Measure every reading, and say what fits.

    UserError for weights without a decoder or sentinels of their own, and text that is too short.
    """
    config, parameters = _load(settings)
    tokenizer = _tokenizer(settings)
    num_pieces = tokenizer.vocabulary.num_pieces
    if num_pieces >= config.vocabulary_rows:
        raise UserError(
            f"the tokenizer has {num_pieces:,} pieces and the weights {config.vocabulary_rows:,} rows: give "
            "the tokenizer that belongs to them"
        )
    num_sentinels = settings.sentinels or config.num_sentinels or _NUM_SENTINELS
    places = sentinel_places(num_pieces, num_sentinels, config.vocabulary_rows)
    objectives = [
        SpanCorruption(_DENSITY, _MEAN_SPAN_LENGTH, form="group"),
        SpanCorruption(_DENSITY, _MEAN_SPAN_LENGTH, form="t5"),
    ]
    limits = (config.max_positions, config.max_positions, num_sentinels)
    length = min(settings.window, *(objective.capacity(*limits) for objective in objectives))
    windows = text_windows(tokenizer, read_text(settings.text), settings.samples, length)
    models = {order: _model(config, tensors) for order, tensors in feed_forward_orders(parameters).items()}
    found = tqdm(
        measure(models, windows, places, objectives, num_pieces, settings.seed),
        total=len(objectives) * len(places) * len(models),
        desc="probing",
        unit=" readings",
        disable=None,
    )
    readings = list(found)
    judged = verdicts(readings, settings.seed)
    if settings.json:
        say(_as_json(readings, judged, length))
        return
    say(f"{len(windows)} windows of {length} tokens; losses in nats a label\n")
    say(_table(readings))
    say("")
    for verdict in judged:
        say(str(verdict))


def _load(settings: ProbeSettings) -> tuple[DeltaLMConfig, dict[str, Tensor]]:
    if not read_source(settings.weights).has_sentinels:
        raise UserError(f"{settings.weights} is an XLM-R, which has neither sentinels nor a decoder to probe")
    heads: dict[str, Any] = {} if settings.heads is None else {"num_heads": settings.heads}
    loaded = load_pretrained(settings.weights, **heads)
    if not any(".second_feed_forward." in name for name in loaded.state_dict):
        raise UserError(f"{settings.weights} has no decoder of interleaved blocks: there is nothing to probe")
    return loaded.config, loaded.state_dict


def _tokenizer(settings: ProbeSettings) -> Tokenizer:
    if settings.tokenizer is not None:
        return Tokenizer(settings.tokenizer)
    if not settings.weights.is_dir():
        raise UserError(f"{settings.weights} has no tokenizer: give its SentencePiece model with --tokenizer")
    return read_description(settings.weights).open_tokenizer()


def _model(config: DeltaLMConfig, parameters: dict[str, Tensor]) -> DeltaLM:
    with torch.device("meta"):
        model = DeltaLM(config)
    model.load_state_dict(parameters, assign=True)
    return model


def _table(readings: list[Reading]) -> str:
    rows = [
        (
            f"{reading.form}, {reading.order}",
            f"{reading.first_sentinel_id}",
            f"{reading.loss:.4f}",
            f"{reading.text_loss:.4f}",
        )
        for reading in sorted(readings, key=lambda reading: (reading.form, reading.loss))
    ]
    return format_table([("form, feed-forward layers", "first sentinel", "loss", "of text alone"), *rows])


def _as_json(readings: list[Reading], judged: list[Verdict], length: int) -> str:
    content = {
        "windows": len(readings[0].sums),
        "window_length": length,
        "readings": [
            {
                "first_sentinel_id": reading.first_sentinel_id,
                "order": reading.order,
                "form": reading.form,
                "loss": reading.loss,
                "text_loss": reading.text_loss,
            }
            for reading in readings
        ],
        "verdicts": [asdict(verdict) for verdict in judged],
    }
    return json.dumps(content, indent=2)
