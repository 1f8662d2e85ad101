"""How likely given targets are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deltalm_ds import ops
from deltalm_ds.model import DeltaLM, PackedTokens
from deltalm_ds.text.vocabulary import Vocabulary


# inference_mode would leave scratch tensors behind that training, which shares them, cannot write.
@torch.no_grad()
def score_targets(
    model: DeltaLM, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[list[float]]:
    """The log-probability of each token of each target, given its source and the tokens before it, in nats.

    Sources and targets are scored as they are given: each ends with `</s>` where that is meant to count.
    ValueError where one has more tokens than the model has positions.
    """
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources, but {len(targets)} targets")
    if not sources:
        return []
    device = model.embedding.weight.device
    source = PackedTokens.from_sequences(sources).to(device)
    decoder_input = PackedTokens.from_sequences(
        [[Vocabulary.EOS, *target][: len(target)] for target in targets]
    )
    labels = torch.tensor([token for target in targets for token in target], dtype=torch.int64)
    hidden = model.decode(decoder_input.to(device), model.encode(source), source)
    losses = model.embedding(ops.linear_cross_entropy, hidden, labels.to(device))
    scores = (-losses.token_negative_log_likelihood).cpu().split([len(target) for target in targets])
    return [part.tolist() for part in scores]
