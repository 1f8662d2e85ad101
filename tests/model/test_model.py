"""What the model promises beyond parity: initialisation, both norm orders, dropout by address, limits."""

import math

import model_samples as samples
import pytest
import torch

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, PackedTokens

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("pre_layer_norm", [False, True])
@pytest.mark.parametrize("split", [[[4, 1, 3, 0, 2]], [[0, 1], [2, 3, 4]], [[2], [4], [0], [3], [1]]])
def test_dropout_does_not_depend_on_packing_or_split(split, pre_layer_norm):
    model = samples.model(pre_layer_norm=pre_layer_norm)
    whole = samples.run(model)
    parts = [samples.run(model, rows) for rows in split]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss, rtol=1e-6, atol=0)
    per_row = dict(
        zip(
            [row for rows in split for row in rows],
            torch.cat([part.token_negative_log_likelihood for part in parts]).split(
                [samples.TARGET_LENGTHS[row] for rows in split for row in rows]
            ),
            strict=True,
        )
    )
    together = torch.cat([per_row[row] for row in sorted(per_row)])
    torch.testing.assert_close(together, whole.token_negative_log_likelihood, **TOLERANCE)
    expected = samples.gradients(model)
    for name, gradient in samples.gradients(model, *split).items():
        torch.testing.assert_close(gradient, expected[name], **TOLERANCE)


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_kind_of_dropout_acts(kind):
    off = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    plain, dropping = samples.model(**off), samples.model(**{**off, kind: 0.3})
    assert samples.run(plain).loss != samples.run(dropping).loss
    assert samples.run(plain).loss == samples.run(dropping, state=None).loss


def test_dropout_follows_seed_and_step():
    model = samples.model()
    losses = [
        samples.run(model, state=DropoutState(seed, step)).loss.item()
        for seed, step in [(1, 1), (1, 1), (1, 2), (2, 1)]
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_train_and_eval_change_nothing():
    model = samples.model()
    assert samples.run(model.train()).loss == samples.run(model.eval()).loss


@pytest.mark.parametrize("values", [(-1, 0), (0, -1), (2**32, 0), (0, 2**32)])
def test_dropout_state_has_limits(values):
    with pytest.raises(UserError, match="2\\^32"):
        DropoutState(*values)


def test_pre_layer_norm_has_final_norms():
    final = {"encoder.final_norm.weight", "decoder.final_norm.weight"}
    assert final <= samples.model(pre_layer_norm=True).state_dict().keys()
    assert not final & samples.model().state_dict().keys()


@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_it_trains(pre_layer_norm):
    model = samples.model(pre_layer_norm=pre_layer_norm)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = samples.run(model, state=DropoutState(1, step)).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_pre_layer_norm_passes_the_residual_on():
    # With its output projections at zero, a pre-LN sub-layer is the identity, a post-LN one is not.
    model = samples.model(pre_layer_norm=True, num_decoder_blocks=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".output_" in name or ".fc2_" in name:
                parameter.zero_()
    source = samples.batch()[0]
    embedded = model.encoder.embed(model.embedding.weight[source.tokens], source, None)
    torch.testing.assert_close(model.encode(source), model.encoder.final_norm(embedded))


def test_too_long_sequences():
    model = samples.model()
    long, short = PackedTokens.from_sequences([[5] * 21]), PackedTokens.from_sequences([[5] * 20])
    labels = torch.full((20,), 5)
    assert model(short, short, labels).loss.isfinite()
    for source, target in ((long, short), (short, long)):
        with pytest.raises(ValueError, match="21 tokens, but the model has 20 positions"):
            model(source, target, labels)
    with pytest.raises(ValueError, match="20 positions"):
        model.encode(long)


def test_initialisation():
    torch.manual_seed(3)
    width, inner = 256, 512
    model = DeltaLM(
        DeltaLMConfig(
            vocabulary_rows=3000,
            width=width,
            feed_forward_width=inner,
            num_heads=4,
            num_encoder_layers=2,
            num_decoder_blocks=1,
            mask_id=2000,
            first_sentinel_id=2001,
        )
    )
    xavier = math.sqrt(6 / (2 * width))
    for name, parameter in model.state_dict().items():
        leaf = name.rsplit(".", 1)[1]
        if leaf == "weight" and "norm" not in name:
            assert parameter.std().item() == pytest.approx(width**-0.5, rel=0.02), name
            assert not parameter[1].any(), name
            assert parameter[0].any(), name
        elif leaf in ("query_weight", "key_weight", "value_weight"):
            is_uniform(parameter, xavier / math.sqrt(2), name)
        elif leaf == "output_weight":
            is_uniform(parameter, xavier, name)
        elif leaf in ("fc1_weight", "query_bias", "key_bias", "value_bias", "fc1_bias"):
            is_uniform(parameter, width**-0.5, name)
        elif leaf in ("fc2_weight", "fc2_bias"):
            is_uniform(parameter, inner**-0.5, name)
        elif leaf in ("norm_weight", "weight"):
            assert (parameter == 1).all(), name
        else:
            assert leaf in ("output_bias", "norm_bias", "bias"), name
            assert not parameter.any(), name


def is_uniform(parameter, bound, name):
    """Uniform over [-bound, bound]."""
    assert parameter.abs().max() <= bound, name
    assert parameter.abs().max() > 0.95 * bound, name
    assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1), name
    assert abs(parameter.mean().item()) < 5 * bound / math.sqrt(3 * parameter.numel()), name
