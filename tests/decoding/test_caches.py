"""The decoder a token at a time against the decoder in one pass."""

from __future__ import annotations

import pytest
import torch
from slow_search import END, ROWS, peaked_model, random_sources

from deltalm_ds.decoding.caches import Moves
from deltalm_ds.decoding.incremental import IncrementalDecoder
from deltalm_ds.model import PackedTokens

STEPS = 40


@pytest.mark.parametrize("num_hypotheses", [1, 3])
@torch.no_grad()
def test_hidden_states_while_hypotheses_are_exchanged_and_sentences_leave(num_hypotheses):
    """Twice as many steps as the first slots hold, so that slots are dropped too."""
    model = peaked_model(pre_layer_norm=True)
    sources = random_sources(1, [6, 2, 11, 4])
    packed = PackedTokens.from_sequences(sources)
    decoder = IncrementalDecoder(model)
    state = decoder.start(model.encode(packed), packed, num_hypotheses)
    generator = torch.Generator().manual_seed(1)
    live = list(range(len(sources)))
    histories = [[[END]] for _ in sources]
    for step in range(STEPS):
        tokens = torch.tensor([[history[-1] for history in histories[name]] for name in live])
        hidden = decoder.step(tokens, state).unflatten(0, tokens.shape)
        for row, name in enumerate(live):
            source = PackedTokens.from_sequences([sources[name]] * tokens.shape[1])
            whole = model.decode(PackedTokens.from_sequences(histories[name]), model.encode(source), source)
            expected = whole[source_ends(histories[name])]
            torch.testing.assert_close(hidden[row], expected, rtol=0, atol=2e-5)
        if step in (3, 25):
            stays = [name not in (0, 3) for name in live] if step == 3 else [name != 1 for name in live]
            moves = Moves(stays, torch.device("cpu"))
            live = moves.of_list(live)
            state.leave(moves)
        parents = torch.randint(0, tokens.shape[1], (len(live), num_hypotheses), generator=generator)
        state.reorder(parents)
        for row, name in enumerate(live):
            chosen = torch.randint(3, ROWS, (num_hypotheses,), generator=generator).tolist()
            old = histories[name]
            pairs = zip(parents[row].tolist(), chosen, strict=True)
            histories[name] = [[*old[parent], token] for parent, token in pairs]


def source_ends(sequences):
    """Where the last token of each packed sequence lies."""
    return torch.tensor([len(sequence) for sequence in sequences]).cumsum(0) - 1
