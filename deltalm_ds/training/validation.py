"""Validation: losses on a fixed set, whether the source is used at all, and reconstructed text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from deltalm_ds.data.batches import pack_masked, pack_samples
from deltalm_ds.data.loader import to_tensors
from deltalm_ds.data.masked import MaskedExample
from deltalm_ds.data.samples import GroupName, Sample
from deltalm_ds.ops import IGNORE
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.training.distributed import Process, sum_over_ranks
from deltalm_ds.training.engine import Engine
from deltalm_ds.training.filled_masks import fill_masks
from deltalm_ds.training.reconstruction import reconstruct

_TEXT_KEYS = ("text", "text_with_other_source", "text_with_same_language")


@dataclass(frozen=True)
class ValidationReport:
    """What one validation found."""

    values: dict[str, float]
    """Nats a token by name: "loss", "loss/OBJECTIVE", "loss/LANGUAGE"; and of tokens that are no sentinels
    "text/OBJECTIVE", "text_with_other_source/OBJECTIVE" (the source of another sample, mostly of another
    language), "text_with_same_language/OBJECTIVE" (of another sample of the same language),
    "unigram_entropy/OBJECTIVE". An encoder by itself predicts in its source, so no other takes its place."""
    texts: str
    """Samples as the model fills them in."""

    def lines(self) -> str:
        """The report in a few lines, for the console."""
        head = f"validation  loss {self.values['loss']:.4f}"
        rows = []
        for name in self.values:
            if name.startswith("text/"):
                objective = name.removeprefix("text/")
                other, same = (self.values.get(f"{key}/{objective}") for key in _TEXT_KEYS[1:])
                rows.append(
                    f"  {objective}: {self.values[name]:.4f} nats a token of text (sentinels not counted), "
                    + ("" if other is None else f"{other:.4f} with another sample's source, ")
                    + ("" if same is None else f"{same:.4f} if of the same language, ")
                    + f"unigram entropy {self.values[f'unigram_entropy/{objective}']:.4f}"
                )
        return "\n".join([head, *rows])


class Pause(Protocol):
    """What a validation does between two batches: look whether it is to end."""

    def together(self) -> None:
        """Called by all ranks at the same place; what it raises, it raises on all of them."""

    def is_wanted(self) -> bool:
        """Whether this rank knows that the next `together` will raise: what it does until then is for
        nothing."""


class _NoPause:
    def together(self) -> None:
        """Go on."""

    def is_wanted(self) -> bool:
        return False


NO_PAUSE: Pause = _NoPause()


class Validator:
    """Validates on `samples`, the same ones every time, shared out over the processes."""

    def __init__(
        self,
        samples: Sequence[Sample],
        groups: Sequence[GroupName],
        tokenizer: Tokenizer,
        process: Process,
        *,
        samples_at_once: int,
        num_texts: int,
    ) -> None:
        self.groups = groups
        self.tokenizer = tokenizer
        self.process = process
        vocabulary = tokenizer.vocabulary
        self._sentinels = range(
            vocabulary.first_sentinel_id, vocabulary.first_sentinel_id + vocabulary.num_sentinels
        )
        kept = [sample for sample in samples if len(sample.example.labels)]
        self._texts = [kept[place] for place in _spread(len(kept), num_texts)]
        self._is_of_encoder = any(isinstance(sample.example, MaskedExample) for sample in kept)
        self._batches: list[tuple[list[Sample], ...]] = []
        self._entropies: dict[str, float] = {}
        for objective in dict.fromkeys(sample.objective for sample in kept):
            same = [sample for sample in kept if sample.objective == objective]
            labels = np.concatenate([sample.example.labels for sample in same])
            self._entropies[objective] = _entropy(labels[~np.isin(labels, self._sentinels)])
            others = [] if self._is_of_encoder else [_rotated(same), _others_of_the_language(same)]
            for start in range(0, len(same), samples_at_once):
                part = slice(start, start + samples_at_once)
                self._batches.append((same[part], *(other[part] for other in others)))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to validate on."""
        return not self._batches

    @property
    def texts_title(self) -> str:
        """What a report's texts show."""
        return "filled masks" if self._is_of_encoder else "reconstructed spans"

    def run(self, engine: Engine, pause: Pause = NO_PAUSE) -> ValidationReport:
        """Validate the engine's model; called by all processes together, as `pause` is between batches."""
        sums = torch.zeros(6, len(self.groups), dtype=torch.float64, device=self.process.device)
        with torch.no_grad():
            for number in range(0, len(self._batches), self.process.world_size):
                pause.together()
                self._add(engine, number + self.process.rank, sums)
            texts = ""
            if self._texts:
                where = (self._texts, self.tokenizer, self.process.device)
                model: Any = engine.module
                texts = fill_masks(model, *where) if self._is_of_encoder else reconstruct(model, *where)
        return ValidationReport(self._values(sum_over_ranks(sums).tolist()), texts)

    def _add(self, engine: Engine, number: int, sums: torch.Tensor) -> None:
        # A process left without a batch repeats the last one and forgets it: under ZeRO-3 all must go along.
        samples, *others = self._batches[min(number, len(self._batches) - 1)]
        pack = pack_masked if self._is_of_encoder else pack_samples
        batch = to_tensors(pack(samples), self.process.device)
        nll = engine.forward(batch, None).token_negative_log_likelihood
        other_nlls = [self._with_sources_of(other, samples, engine) for other in others]
        if number >= len(self._batches):
            return
        labelled = batch.labels != IGNORE
        sentinel = (batch.labels >= self._sentinels.start) & (batch.labels < self._sentinels.stop)
        text = (labelled & ~sentinel).double()
        group_of_token = torch.repeat_interleave(
            batch.groups, batch.target_cumulative_lengths.diff(), output_size=len(batch.labels)
        )
        rows = [nll.double(), labelled.double(), text, *(part * text for part in (nll, *other_nlls))]
        sums[: len(rows)].index_add_(1, group_of_token, torch.stack(rows))

    def _with_sources_of(
        self, others: Sequence[Sample], samples: Sequence[Sample], engine: Engine
    ) -> torch.Tensor:
        """Each label's negative log-likelihood [target tokens] when the encoder reads others' sources."""
        swapped = [
            replace(sample, example=sample.example._replace(source=other.example.source))
            for sample, other in zip(samples, others, strict=True)
        ]
        batch = to_tensors(pack_samples(swapped), self.process.device)
        return engine.forward(batch, None).token_negative_log_likelihood

    def _values(self, sums: list[list[float]]) -> dict[str, float]:
        nll, tokens, text_tokens, *text_nlls = (np.array(row) for row in sums)
        values = {"loss": float(nll.sum() / tokens.sum())}
        for attribute in ("objective", "language"):
            names = [getattr(group, attribute) for group in self.groups]
            for name in dict.fromkeys(names):
                of_name = np.array([other == name for other in names])
                if tokens[of_name].sum():
                    values[f"loss/{name}"] = float(nll[of_name].sum() / tokens[of_name].sum())
                if attribute == "objective" and text_tokens[of_name].sum():
                    count = text_tokens[of_name].sum()
                    keys = _TEXT_KEYS[:1] if self._is_of_encoder else _TEXT_KEYS
                    for key, text_nll in zip(keys, text_nlls, strict=False):
                        values[f"{key}/{name}"] = float(text_nll[of_name].sum() / count)
                    values[f"unigram_entropy/{name}"] = self._entropies[name]
        return values


def _rotated(samples: list[Sample]) -> list[Sample]:
    """For each sample the one half of the set away."""
    half = len(samples) // 2
    return samples[half:] + samples[:half]


def _others_of_the_language(samples: list[Sample]) -> list[Sample]:
    """For each sample another one of its language, so that the language alone does not tell them apart.

    A language's samples come one after the other; the only one of its language gets its neighbour.
    """
    groups = itertools.groupby(samples, key=lambda sample: sample.source_index)
    others = [other for _, group in groups for other in _rotated(list(group))]
    return [
        samples[place - 1] if other is sample else other
        for place, (sample, other) in enumerate(zip(samples, others, strict=True))
    ]


def _entropy(tokens: np.ndarray) -> float:
    """Of the tokens' own unigram distribution, in nats."""
    _, counts = np.unique(tokens, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _spread(num_items: int, num_chosen: int) -> list[int]:
    """`num_chosen` places spread evenly over range(num_items)."""
    return [int(place) for place in np.linspace(0, num_items - 1, min(num_chosen, num_items))]
