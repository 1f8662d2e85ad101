"""The standard decoder, against torch's own, and what it must share with the interleaved one."""

import model_samples as samples
import pytest
import torch
from torch import nn

from deltalm_ds.model import PackedTokens, Recomputation
from deltalm_ds.model.decoder import StandardDecoderLayer
from deltalm_ds.model.randomness import Site

CONFIG = samples.config(decoder="standard")


def torch_layer(layer: StandardDecoderLayer, pre_layer_norm: bool) -> nn.TransformerDecoderLayer:
    """`layer` as torch has it."""
    theirs = nn.TransformerDecoderLayer(
        CONFIG.width,
        CONFIG.num_heads,
        CONFIG.feed_forward_width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=pre_layer_norm,
    )
    state = {}
    for prefix, norm, ours in (
        ("self_attn", "norm1", layer.self_attention),
        ("multihead_attn", "norm2", layer.cross_attention),
    ):
        for kind in ("weight", "bias"):
            parts = [getattr(ours, f"{part}_{kind}") for part in ("query", "key", "value")]
            state[f"{prefix}.in_proj_{kind}"] = torch.cat(parts)
            state[f"{prefix}.out_proj.{kind}"] = getattr(ours, f"output_{kind}")
            state[f"{norm}.{kind}"] = getattr(ours, f"norm_{kind}")
    for kind in ("weight", "bias"):
        state[f"linear1.{kind}"] = getattr(layer.feed_forward, f"fc1_{kind}")
        state[f"linear2.{kind}"] = getattr(layer.feed_forward, f"fc2_{kind}")
        state[f"norm3.{kind}"] = getattr(layer.feed_forward, f"norm_{kind}")
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_the_decoder_computes_what_torchs_layers_do(pre_layer_norm):
    model = samples.model(decoder="standard", pre_layer_norm=pre_layer_norm)
    source, target, _ = samples.batch()
    memory = torch.randn(len(source.tokens), CONFIG.width)
    vectors = torch.randn(len(target.tokens), CONFIG.width)
    layers = [torch_layer(layer, pre_layer_norm) for layer in model.decoder.blocks]
    assert len(layers) == 3
    with torch.no_grad():
        found = model.decoder(vectors, target, memory, source, None, Recomputation())
        embedded = model.decoder.embed(vectors, target, None)
        for row, output in enumerate(found.split(target.lengths.tolist())):
            hidden = embedded.split(target.lengths.tolist())[row][None]
            causal = nn.Transformer.generate_square_subsequent_mask(hidden.shape[1])
            for layer in layers:
                own_memory = memory.split(source.lengths.tolist())[row][None]
                hidden = layer(hidden, own_memory, tgt_mask=causal, tgt_is_causal=True)
            hidden = hidden[0]
            expected = model.decoder.final_norm(hidden) if pre_layer_norm else hidden
            torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_each_sublayer_has_dropout_bits_of_its_own():
    model = samples.model(decoder="standard")
    layers = [(layer, "encoder") for layer in model.encoder.layers]
    layers += [(layer, "decoder") for layer in model.decoder.blocks]
    places = [(part.layer, part.site) for layer, _ in layers for part in layer.children()]
    places += [(stack.layer, Site.EMBEDDING) for stack in (model.encoder, model.decoder)]
    assert len(set(places)) == len(places) == 3 * 2 + 3 * 3 + 2
    order = [name for name, _ in model.decoder.blocks[0].named_children()]
    assert order == ["self_attention", "cross_attention", "feed_forward"]


@pytest.mark.parametrize("split", [[[4, 1, 3, 0, 2]], [[0, 1], [2, 3, 4]]])
def test_dropout_does_not_depend_on_packing_or_split(split):
    model = samples.model(decoder="standard")
    whole = samples.run(model).loss
    torch.testing.assert_close(sum(samples.run(model, rows).loss for rows in split), whole, rtol=1e-6, atol=0)
    expected = samples.gradients(model)
    for name, gradient in samples.gradients(model, *split).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
        assert gradient.any(), name


def test_no_target_token_sees_a_later_one():
    model = samples.model(decoder="standard")
    source = PackedTokens.from_sequences([[5, 6, 7]])
    memory = torch.randn(3, CONFIG.width)
    with torch.no_grad():
        first, second = (
            model.decode(PackedTokens.from_sequences([tokens]), memory, source)
            for tokens in ([8, 9, 10, 11], [8, 9, 10, 12])
        )
    assert torch.equal(first[:3], second[:3])
    assert not torch.allclose(first[3], second[3])


@pytest.mark.parametrize("every", [1, 2])
def test_recomputation_changes_no_bit(every):
    model = samples.model(decoder="standard")
    plain = samples.gradients(model)
    model.recomputation = Recomputation(every)
    calls = []
    for layer in model.decoder.blocks:
        layer.register_forward_pre_hook(lambda *_: calls.append(1))
    for name, gradient in samples.gradients(model).items():
        assert torch.equal(gradient, plain[name]), name
    assert len(calls) == {1: 6, 2: 5}[every]
