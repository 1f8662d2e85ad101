"""Masked spans filled in by the model, and translations, as text to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deltalm_ds.data.objectives import Example
from deltalm_ds.data.samples import Sample
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.text.vocabulary import Vocabulary

MAX_SPAN_TOKENS = 8
MAX_TRANSLATION_TOKENS = 32
MAX_SHOWN_TOKENS = 96


@dataclass(frozen=True)
class _Span:
    """A masked span: what the decoder has read before it, and its own tokens. Also a whole translation."""

    sample: int
    sentinel: int | None
    before: list[int]
    tokens: list[int]


@torch.no_grad()
def reconstruct(model: DeltaLM, samples: Sequence[Sample], tokenizer: Tokenizer, device: torch.device) -> str:
    """The text of each sample, every span as [what was cut out → what the model puts in].

    The decoder reads the true spans before; within a span each token is the likeliest one, sentinels left
    out, after the model's own. A translation comes behind its source in the same form. Spans, translations
    and samples are cut to MAX_SPAN_TOKENS, MAX_TRANSLATION_TOKENS and MAX_SHOWN_TOKENS. The number of forward
    calls depends on nothing but the samples, since under ZeRO-3 every call is a collective.
    """
    vocabulary = tokenizer.vocabulary
    spans = [span for number, sample in enumerate(samples) for span in _spans(number, sample, tokenizer)]
    sources = [samples[span.sample].example.source.tolist() for span in spans]
    source = PackedTokens.from_sequences(sources).to(device)
    encoder_output = model.encode(source)
    filled: list[list[int]] = [[] for _ in spans]
    for _ in range(max(len(span.tokens) for span in spans)):
        # A full span waits for the longer ones. Its last token is not read: behind the last label of a
        # target, the model may have no position for it.
        targets = [
            span.before + tokens[: len(span.tokens) - 1] for span, tokens in zip(spans, filled, strict=True)
        ]
        decoder_input = PackedTokens.from_sequences(targets).to(device)
        hidden = model.decode(decoder_input, encoder_output, source)
        logits = model.logits(hidden[decoder_input.cumulative_lengths[1:].long() - 1])
        first = vocabulary.first_sentinel_id
        logits[:, first : first + vocabulary.num_sentinels] = float("-inf")
        for span, tokens, token in zip(spans, filled, logits.argmax(-1).tolist(), strict=True):
            if len(tokens) < len(span.tokens):
                tokens.append(token)
    filled_at = {(span.sample, span.sentinel): tokens for span, tokens in zip(spans, filled, strict=True)}
    blocks = []
    for number, sample in enumerate(samples):
        words = [f"[{sample.objective}, {sample.language}]"]
        run: list[int] = []
        cut_out = {span.sentinel: span.tokens for span in spans if span.sample == number}
        for token in sample.example.source.tolist()[:MAX_SHOWN_TOKENS]:
            if not vocabulary.is_sentinel(token):
                run.append(token)
                continue
            words.append(tokenizer.decode(run))
            run = []
            model_text = tokenizer.decode(filled_at[number, token])
            words.append(f"[{tokenizer.decode(cut_out[token])} → {model_text}]")
        words.append(tokenizer.decode(run))
        if None in cut_out:
            model_text = tokenizer.decode(_until_end(filled_at[number, None]))
            words.append(f"[{tokenizer.decode(cut_out[None])} → {model_text}]")
        blocks.append(" ".join(word for word in words if word))
    return "\n".join(blocks)


def _spans(number: int, sample: Sample, tokenizer: Tokenizer) -> list[_Span]:
    """A sample's spans, by its decoder's side `<mask_0> span_0 <mask_1> span_1 …`, or its translation."""
    example, vocabulary = sample.example, tokenizer.vocabulary
    assert isinstance(example, Example)
    target = [*example.decoder_input.tolist(), int(example.labels[-1])]
    places = [place for place, token in enumerate(target) if vocabulary.is_sentinel(token)]
    if not places:
        return [_Span(number, None, target[:1], target[1:][:MAX_TRANSLATION_TOKENS])]
    spans = []
    for place, end in zip(places, [*places[1:], len(target)], strict=True):
        span = target[place + 1 : end][:MAX_SPAN_TOKENS]
        spans.append(_Span(number, target[place], target[: place + 1], span))
    return spans


def _until_end(tokens: list[int]) -> list[int]:
    """What stands before the first `</s>`."""
    return tokens[: tokens.index(Vocabulary.EOS)] if Vocabulary.EOS in tokens else tokens
