"""What trimming changed in what a model computes, measured on sample lines; and what it saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deltalm_ds.decoding.allowed import ordinary_tokens
from deltalm_ds.decoding.batching import batches_by_tokens
from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.trimming.cutting import Trimmed

_BATCH_TOKENS = 1024
_TIMED_TOKENS = 32
_TIMED_RUNS = 2

Ids = Sequence[NDArray[np.int32]]


@dataclass(frozen=True)
class Outputs:
    """How many sample outputs are the same before and after, of how many."""

    num_lines: int
    """Outputs compared."""
    num_kept: int
    """Outputs of the old model that are made of kept tokens only, by the model's own search."""
    num_kept_equal: int
    """Of those, the ones that the trimmed model writes as well."""
    num_greedy_equal: int
    """Greedy outputs that are equal when the old model may not write what was dropped."""


def logit_difference(
    trimmed: Trimmed, sources: Ids, new_sources: Ids, targets: Ids, new_targets: Ids
) -> float:
    """The largest difference of a kept token's logit, as a share of the largest logit's size; nan
    where one is no number.

    Both models read the same sources and targets, each in its own ids.
    """
    moved = trimmed.old_rows >= 0
    differences, sizes = [], []
    for batch in batches_by_tokens([len(source) for source in sources], _BATCH_TOKENS):
        before = _logits(trimmed.before, sources, targets, batch)[:, trimmed.old_rows[moved]]
        after = _logits(trimmed.after, new_sources, new_targets, batch)[:, moved]
        differences.append((before - after).abs().max())
        sizes.append(before.abs().max())
    return float(torch.stack(differences).max() / torch.stack(sizes).max())


def compare_outputs(trimmed: Trimmed, sources: Ids, new_sources: Ids, search: SearchSettings) -> Outputs:
    """Generate from the sources with both models, pieces and `</s>` alone."""
    moved = trimmed.old_rows >= 0
    new_row = torch.full((trimmed.before.config.vocabulary_rows,), -1)
    new_row[trimmed.old_rows[moved]] = torch.nonzero(moved).flatten()
    all_before, all_after = (
        torch.from_numpy(ordinary_tokens(Vocabulary(num_pieces), num_rows))
        for num_pieces, num_rows in (
            (trimmed.num_pieces_before, len(new_row)),
            (len(trimmed.old_pieces), len(moved)),
        )
    )

    before = generate(trimmed.before, sources, search, all_before)
    after = generate(trimmed.after, new_sources, search, all_after)
    translated = [new_row[output].tolist() for output in before]
    kept = [-1 not in output for output in translated]
    equal = [old == new for old, new in zip(translated, after, strict=True)]

    greedy = SearchSettings(beam=1, max_length_a=search.max_length_a, max_length_b=search.max_length_b)
    before = generate(trimmed.before, sources, greedy, all_before & (new_row >= 0))
    after = generate(trimmed.after, new_sources, greedy, all_after)
    return Outputs(
        num_lines=len(kept),
        num_kept=sum(kept),
        num_kept_equal=sum(is_kept and same for is_kept, same in zip(kept, equal, strict=True)),
        num_greedy_equal=sum(new_row[old].tolist() == new for old, new in zip(before, after, strict=True)),
    )


def generate(
    model: DeltaLM, sources: Ids, search: SearchSettings, allowed: Tensor | None = None
) -> list[list[int]]:
    """The best output of each source, in order."""
    generator = Generator(model, search, allowed=allowed)
    outputs: list[list[int]] = [[] for _ in sources]
    for batch in batches_by_tokens([len(source) for source in sources], _BATCH_TOKENS):
        found = generator.generate([sources[number].tolist() for number in batch], numbers=batch)
        for number, hypotheses in zip(batch, found, strict=True):
            outputs[number] = hypotheses[0].tokens if hypotheses else []
    return outputs


def decoding_speed(model: DeltaLM, sources: Ids) -> float:
    """Tokens a second, greedily, of outputs of the same length: the best of a few runs."""
    length = min(_TIMED_TOKENS, model.config.max_positions - 1)
    search = SearchSettings(beam=1, min_length=length, max_length_b=length)
    seconds = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        generate(model, sources, search)
        seconds.append(time.perf_counter() - start)
    return len(sources) * length / min(seconds)


@torch.inference_mode()
def _logits(model: DeltaLM, sources: Ids, targets: Ids, batch: Sequence[int]) -> Tensor:
    """[target tokens of the batch, rows]."""
    source = PackedTokens.from_sequences([sources[number].tolist() for number in batch])
    decoder_input = PackedTokens.from_sequences(
        [[Vocabulary.EOS, *targets[number].tolist()][:-1] for number in batch]
    )
    return model.logits(model.decode(decoder_input, model.encode(source), source))
