"""Validation by the task's own score, of outputs that the very search of `generate` finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist

from deltalm_ds.decoding.allowed import tokens_of_text
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.decoding.translator import TextGenerator
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.downstream.examples import DownstreamExample
from deltalm_ds.model import DeltaLM
from deltalm_ds.scoring.metrics import build_metric
from deltalm_ds.training.distributed import Process, from_first
from deltalm_ds.training.engine import Engine
from deltalm_ds.training.validation import NO_PAUSE, Pause, ValidationReport, Validator

_EXAMPLES_AT_ONCE = 64
"""Examples that are decoded before the next look whether the validation is to end."""


class TaskValidator:
    """Losses as in pre-training, and outputs with their scores, shared out over the processes.

    Args:
        losses: the validation of losses.
        examples: what outputs are made for.
        encoder: the run's.
        search: how they are searched for.
        metrics: names of scores, the first being that which chooses models.
        batch_tokens: tokens that are decoded together.
        num_texts: outputs that are shown.
        own_language_only: whether outputs are made of pieces of the examples' target language alone.
    """

    def __init__(
        self,
        losses: Validator,
        examples: Sequence[DownstreamExample],
        encoder: TextEncoder,
        search: SearchSettings,
        metrics: Sequence[str],
        process: Process,
        *,
        batch_tokens: int,
        num_texts: int,
        own_language_only: bool = False,
    ) -> None:
        self._losses, self._examples, self._encoder = losses, list(examples), encoder
        self._search, self._metrics, self._process = search, metrics, process
        self._batch_tokens, self._num_texts = batch_tokens, num_texts
        self._own_language_only = own_language_only
        self.is_empty = not self._examples
        """Whether there is nothing to validate on."""
        self.texts_title = "outputs"
        """What a report's texts show."""

    def run(self, engine: Engine, pause: Pause = NO_PAUSE) -> ValidationReport:
        """Validate the engine's model; called by all processes together, as `pause` is between batches."""
        report = self._losses.run(engine, pause)
        with torch.no_grad():
            outputs = self._outputs(plain_model(engine, self._process.device), pause)
        values, texts = from_first(self._scored(outputs) if self._process.is_first else None) or ({}, "")
        return _TaskReport({**report.values, **values}, texts, tuple(values))

    def _outputs(self, model: DeltaLM, pause: Pause) -> list[str]:
        """The best output for every example, on rank 0."""
        rank, world_size = self._process.rank, self._process.world_size
        mine = list(range(rank, len(self._examples), world_size))
        outputs: dict[int, str] = {}
        for language in dict.fromkeys(self._examples[place].target_language for place in mine):
            places = [place for place in mine if self._examples[place].target_language == language]
            generator = TextGenerator(
                model,
                self._encoder,
                self._search,
                batch_tokens=self._batch_tokens,
                allowed=self._allowed(language, model.config.vocabulary_rows),
            )
            places.sort(key=lambda place: len(self._examples[place].source))
            for start in range(0, len(places), _EXAMPLES_AT_ONCE):
                if pause.is_wanted():
                    break
                part = places[start : start + _EXAMPLES_AT_ONCE]
                texts = [self._examples[place].source for place in part]
                found = generator.generate(texts, [language] * len(texts))
                outputs |= {place: best[0].text for place, best in zip(part, found.ranked, strict=True)}
        pause.together()
        everyone: list[Any] = [None] * world_size
        dist.all_gather_object(everyone, outputs)
        merged = {place: text for each in everyone for place, text in each.items()}
        return [merged[place] for place in range(len(self._examples))]

    def _allowed(self, language: str, num_rows: int) -> np.ndarray | None:
        if not self._own_language_only:
            return None
        texts = [example.source for example in self._examples if example.source_language == language]
        return tokens_of_text(self._encoder.tokenizer, texts, num_rows)

    def _scored(self, outputs: list[str]) -> tuple[dict[str, float], str]:
        """Scores by name, "bleu/en-fr" and their mean "bleu", and some outputs beside what was wanted."""
        values: dict[str, float] = {}
        directions = dict.fromkeys(example.direction for example in self._examples)
        for name in self._metrics:
            of_direction = []
            for direction in directions:
                pairs = [
                    (output, example)
                    for output, example in zip(outputs, self._examples, strict=True)
                    if example.direction == direction
                ]
                metric = build_metric(name, pairs[0][1].target_language)
                score = metric.score([text for text, _ in pairs], [example.targets for _, example in pairs])
                of_direction.append(score.value)
                values[f"{name}/{direction}"] = score.value
            values[name] = float(np.mean(of_direction))
        shown = np.linspace(0, len(outputs) - 1, min(self._num_texts, len(outputs))).astype(int).tolist()
        blocks = [
            f"[{self._examples[place].direction}] {self._examples[place].source}\n"
            f"  wanted  {self._examples[place].targets[0]}\n  output  {outputs[place]}"
            for place in dict.fromkeys(shown)
        ]
        return values, "\n".join(blocks)


@dataclasses.dataclass(frozen=True)
class _TaskReport(ValidationReport):
    """A report that shows scores."""

    scores: tuple[str, ...]
    """Names of the values that are scores."""

    def lines(self) -> str:
        """The report in a line or two, for the console."""
        means = [name for name in self.scores if "/" not in name]
        of_directions = [name for name in self.scores if "/" in name]
        head = f"validation  loss {self.values['loss']:.4f}  {self._shown(means)}"
        # One direction's scores are the means.
        return head if len(of_directions) == len(means) else f"{head}\n  {self._shown(of_directions)}"

    def _shown(self, names: Sequence[str]) -> str:
        return "  ".join(f"{name} {self.values[name]:.2f}" for name in names)


def plain_model(engine: Engine, device: torch.device) -> DeltaLM:
    """The engine's model with whole weights on this rank, not wrapped: search calls its parts in any order.

    Under ZeRO-3 that is a copy, gathered by all ranks together; otherwise the model itself.
    """
    module: Any = engine.module
    if engine.config.zero_stage < 3:
        return module
    with torch.device("meta"):
        model = DeltaLM(module.config)
    state = {}
    for name, parameter in module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            state[name] = parameter.detach().to(device, copy=True)
    model.load_state_dict(state, assign=True)
    return model
