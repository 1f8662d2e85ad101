"""Masked spans filled in by the model, as text to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from deltalm_ds.data.samples import Sample
from deltalm_ds.model import DeltaLM, PackedTokens


class Decoder(Protocol):
    """What turns token ids into text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text with sentinels shown as `<mask_i>`."""
        ...


@torch.no_grad()
def reconstruct(
    model: DeltaLM, samples: Sequence[Sample], num_tokens: int, device: torch.device
) -> list[list[int]]:
    """The first `num_tokens` target tokens of each sample, each the likeliest after those before it.

    The number of forward calls depends on nothing else, since under ZeRO-3 every call is a collective.
    """
    source = PackedTokens.from_sequences([sample.example.source.tolist() for sample in samples]).to(device)
    encoder_output = model.encode(source)
    targets = [[int(sample.example.decoder_input[0])] for sample in samples]
    for _ in range(num_tokens):
        decoder_input = PackedTokens.from_sequences(targets).to(device)
        hidden = model.decode(decoder_input, encoder_output, source)
        last = decoder_input.cumulative_lengths[1:].long() - 1
        for target, token in zip(targets, model.logits(hidden[last]).argmax(-1).tolist(), strict=True):
            target.append(token)
    return targets


def show(samples: Sequence[Sample], targets: Sequence[Sequence[int]], tokenizer: Decoder) -> str:
    """Three lines a sample: what the model read, the spans that were cut out, the spans it put in."""
    blocks = []
    for sample, target in zip(samples, targets, strict=True):
        example = sample.example
        truth = [int(example.decoder_input[0]), *example.labels.tolist()][: len(target)]
        blocks.append(
            f"[{sample.objective}, {sample.language}]\n"
            f"  reads  {tokenizer.decode(example.source.tolist())}\n"
            f"  truth  {tokenizer.decode(truth)}\n"
            f"  model  {tokenizer.decode(list(target))}"
        )
    return "\n".join(blocks)
