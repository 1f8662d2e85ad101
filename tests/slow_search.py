"""Beam search written down plainly: a hypothesis at a time, everything recomputed for every token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from model_samples import config
from torch import Tensor

from deltalm_ds.decoding.hypotheses import Hypothesis
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.model import DeltaLM, PackedTokens

PAD, END = 1, 2
ROWS = 24


def peaked_model(seed: int = 0, spread: float = 3.0, **changes: object) -> DeltaLM:
    """A random model over ROWS tokens whose likely tokens differ clearly from the others."""
    sizes: dict[str, object] = {"vocabulary_rows": ROWS, "max_positions": 64, "num_sentinels": 0}
    torch.manual_seed(seed)
    model = DeltaLM(config(**{**sizes, "first_sentinel_id": 0, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
        model.embedding.weight.mul_(spread)
    return model


def random_sources(seed: int, lengths: Sequence[int]) -> list[list[int]]:
    """Sources of such lengths, `</s>` counted."""
    generator = torch.Generator().manual_seed(seed)
    return [[*torch.randint(4, ROWS, (length - 1,), generator=generator).tolist(), END] for length in lengths]


@torch.no_grad()
def next_log_probabilities(model: DeltaLM, source: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """[rows]: of what comes after `tokens`."""
    packed = PackedTokens.from_sequences([source])
    decoder_input = PackedTokens.from_sequences([[END, *tokens]])
    hidden = model.decode(decoder_input, model.encode(packed), packed)
    return model.logits(hidden[-1:])[0].log_softmax(0)


def slow_search(
    model: DeltaLM,
    source: Sequence[int],
    settings: SearchSettings,
    prefix: Sequence[int] = (),
    allowed: Tensor | None = None,
) -> list[Hypothesis]:
    """What `Generator.generate` is to find for one source."""
    limit = int(settings.max_length_a * len(source) + settings.max_length_b)
    limit = min(limit, model.config.max_positions - 1)
    hypotheses: list[tuple[list[int], list[float]]] = [([], [])]
    finished: list[Hypothesis] = []
    for step in range(limit + 1):
        candidates = []
        for tokens, scores in hypotheses:
            for token, score in _continuations(model, source, tokens, settings, prefix, allowed, limit):
                candidates.append(([*tokens, token], [*scores, score]))
        candidates.sort(key=lambda candidate: -sum(candidate[1]))
        candidates = candidates[: 2 * settings.beam]
        for tokens, scores in candidates[: settings.beam]:
            if tokens[-1] == END and len(finished) < settings.beam:
                score = sum(scores) / len(scores) ** settings.length_penalty
                finished.append(Hypothesis(tokens, score, scores))
        hypotheses = [candidate for candidate in candidates if candidate[0][-1] != END][: settings.beam]
        if len(finished) == settings.beam or step == limit or not hypotheses:
            break
    finished.sort(key=lambda hypothesis: -hypothesis.score)
    return finished[: settings.num_best]


def _continuations(
    model: DeltaLM,
    source: Sequence[int],
    tokens: list[int],
    settings: SearchSettings,
    prefix: Sequence[int],
    allowed: Tensor | None,
    limit: int,
) -> list[tuple[int, float]]:
    scores = next_log_probabilities(model, source, tokens).tolist()
    if len(tokens) >= limit:
        return [(END, scores[END])]
    if len(tokens) < len(prefix):
        return [(prefix[len(tokens)], scores[prefix[len(tokens)]])]
    size = settings.no_repeat_ngram
    found = []
    for token, score in enumerate(scores):
        if token == PAD or (allowed is not None and not allowed[token]):
            continue
        if token == END and len(tokens) < settings.min_length:
            continue
        if size and token != END and _ends_a_repetition([*tokens, token], size):
            continue
        found.append((token, score * settings.repetition_penalty if token in tokens else score))
    return found


def _ends_a_repetition(tokens: list[int], size: int) -> bool:
    last = tokens[-size:]
    return any(tokens[start : start + size] == last for start in range(len(tokens) - size))
