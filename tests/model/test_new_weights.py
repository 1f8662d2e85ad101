"""New weights, drawn parameter by parameter and in parts."""

import pytest
import torch

from deltalm_ds.model import DeltaLM, DeltaLMConfig, MaskedEncoder
from deltalm_ds.model.masked_encoder import encoder_config
from deltalm_ds.model.new_weights import BLOCK_SIZE, NewWeights, whole

CONFIG = DeltaLMConfig(
    vocabulary_rows=6_000,
    width=96,
    feed_forward_width=128,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_blocks=1,
    max_positions=16,
    mask_id=0,
    first_sentinel_id=0,
    num_sentinels=0,
)
assert BLOCK_SIZE < 3_000 * CONFIG.width < 2 * BLOCK_SIZE < CONFIG.vocabulary_rows * CONFIG.width


def on_meta(config=CONFIG):
    with torch.device("meta"):
        return DeltaLM(config)


def test_a_model_begins_with_the_weights_that_its_seed_names():
    weights = NewWeights(on_meta(), seed=5)
    built = DeltaLM(CONFIG, seed=5)
    for name, parameter in built.named_parameters():
        assert torch.equal(parameter, whole(weights, name, parameter.shape)), name
    assert not torch.equal(built.embedding.weight, DeltaLM(CONFIG, seed=6).embedding.weight)
    assert all(parameter.is_meta for parameter in on_meta().parameters())


def test_without_a_seed_torchs_generator_names_one():
    torch.manual_seed(3)
    first, second = DeltaLM(CONFIG), DeltaLM(CONFIG)
    torch.manual_seed(3)
    assert torch.equal(DeltaLM(CONFIG).embedding.weight, first.embedding.weight)
    assert not torch.equal(first.embedding.weight, second.embedding.weight)


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 7),
        (90, 300),
        (150, 150),
        (BLOCK_SIZE - 3, BLOCK_SIZE + 3),
        (BLOCK_SIZE, 2 * BLOCK_SIZE),
        (BLOCK_SIZE + 1, CONFIG.vocabulary_rows * CONFIG.width),
    ],
)
def test_a_part_is_what_the_whole_has_there(start, stop):
    weights = NewWeights(on_meta(), seed=5)
    table = whole(weights, "embedding.weight", (CONFIG.vocabulary_rows, CONFIG.width))
    assert torch.equal(weights.part("embedding.weight", start, stop), table.flatten()[start:stop])
    assert not table[1].any()
    assert table[[0, 2]].any(1).all()


def test_no_two_parameters_and_no_two_blocks_begin_alike():
    built = DeltaLM(CONFIG, seed=5)
    drawn = [p.flatten()[:2] for p in built.parameters() if p.std() > 0]
    drawn.append(built.embedding.weight.flatten()[BLOCK_SIZE : BLOCK_SIZE + 2])
    signs_and_ranks = {tuple((part / part.abs().max()).tolist()) for part in drawn}
    assert len(signs_and_ranks) == len(drawn)


def test_a_parameter_does_not_depend_on_the_rest_of_the_model():
    name = "encoder.layers.0.feed_forward.fc1_weight"
    deeper = DeltaLMConfig(**{**CONFIG.to_dict(), "num_encoder_layers": 3, "vocabulary_rows": 500})
    one, other = (whole(NewWeights(on_meta(config), 5), name, (128, 96)) for config in (CONFIG, deeper))
    assert torch.equal(one, other)


def test_more_threads_draw_the_same():
    weights = NewWeights(on_meta(), seed=5)
    shape, threads = (CONFIG.vocabulary_rows, CONFIG.width), torch.get_num_threads()
    try:
        tables = []
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            tables.append(whole(weights, "embedding.weight", shape))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*tables)


def test_an_encoder_by_itself_too():
    config = encoder_config("tiny", 400)
    assert torch.equal(
        MaskedEncoder(config, seed=2).head.dense_weight, MaskedEncoder(config, seed=2).head.dense_weight
    )
    encoder = MaskedEncoder(config, seed=2)
    assert not encoder.head.output_bias.any()
    assert 0.9 < encoder.head.dense_weight.abs().max() * config.width**0.5 <= 1
