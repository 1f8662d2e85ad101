"""Masked tokens filled in by an encoder, as text to look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deltalm_ds.data.masked import MaskedExample
from deltalm_ds.data.samples import Sample
from deltalm_ds.model import MaskedEncoder, PackedTokens
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.training.reconstruction import MAX_SHOWN_TOKENS


@torch.no_grad()
def fill_masks(
    model: MaskedEncoder, samples: Sequence[Sample], tokenizer: Tokenizer, device: torch.device
) -> str:
    """The text of each sample, what it is asked for as [what stood there → what the model puts there].

    Every place that counts in the loss is shown, those that kept their token too; neighbours share brackets.
    Samples are cut to MAX_SHOWN_TOKENS. One forward call, since under ZeRO-3 every call is a collective.
    """
    examples = []
    for sample in samples:
        assert isinstance(sample.example, MaskedExample)
        examples.append(sample.example)
    source = PackedTokens.from_sequences([example.source.tolist() for example in examples])
    starts = source.cumulative_lengths.tolist()
    places = [
        start + place
        for start, example in zip(starts, examples, strict=False)
        for place in example.places.tolist()
    ]
    logits = model.logits(source.to(device), torch.tensor(places, device=device))
    filled = iter(logits.argmax(-1).tolist())
    blocks = []
    for sample, example in zip(samples, examples, strict=True):
        answers = {place: next(filled) for place in example.places.tolist()}
        labels = dict(zip(example.places.tolist(), example.labels.tolist(), strict=True))
        blocks.append(
            f"[{sample.objective}, {sample.language}] {_shown(example, labels, answers, tokenizer)}"
        )
    return "\n".join(blocks)


def _shown(
    example: MaskedExample, labels: dict[int, int], answers: dict[int, int], tokenizer: Tokenizer
) -> str:
    words: list[str] = []
    place, end = 0, min(len(example.source), MAX_SHOWN_TOKENS)
    while place < end:
        is_asked_for, start = place in labels, place
        while place < end and (place in labels) == is_asked_for:
            place += 1
        run = range(start, place)
        if is_asked_for:
            truth, answer = ([part[i] for i in run] for part in (labels, answers))
            words.append(f"[{tokenizer.decode(truth)} → {tokenizer.decode(answer)}]")
        else:
            words.append(tokenizer.decode(example.source[start:place].tolist()))
    return " ".join(word for word in words if word)
