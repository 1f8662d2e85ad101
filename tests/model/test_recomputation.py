"""Activation checkpointing changes memory and nothing else."""

import model_samples as samples
import pytest
import torch

from deltalm_ds.errors import UserError
from deltalm_ds.model import Recomputation


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_gradients_are_bit_identical(every, pre_layer_norm):
    model = samples.model(pre_layer_norm=pre_layer_norm)
    plain_loss, plain = samples.run(model).loss, samples.gradients(model)
    model.recomputation = Recomputation(every)
    assert torch.equal(samples.run(model).loss, plain_loss)
    for name, gradient in samples.gradients(model).items():
        assert torch.equal(gradient, plain[name]), name


@pytest.mark.parametrize(("every", "encoder", "decoder"), [(0, 3, 2), (1, 6, 4), (2, 5, 3)])
def test_which_layers_run_twice(every, encoder, decoder):
    model = samples.model()
    model.recomputation = Recomputation(every)
    calls = {"encoder": 0, "decoder": 0}

    def count(side):
        def hook(*_):
            calls[side] += 1

        return hook

    for layer in model.encoder.layers:
        layer.register_forward_pre_hook(count("encoder"))
    for block in model.decoder.blocks:
        block.register_forward_pre_hook(count("decoder"))
    samples.run(model).loss.backward()
    assert calls == {"encoder": encoder, "decoder": decoder}


def test_fewer_activations_are_kept():
    def kept_bytes(every):
        model = samples.model()
        model.recomputation = Recomputation(every)
        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        saved = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = samples.run(model).loss
        assert loss.requires_grad
        return sum(saved.values())

    assert kept_bytes(1) < 0.35 * kept_bytes(0)
    assert kept_bytes(1) < kept_bytes(2) < kept_bytes(0)


def test_without_gradients_nothing_is_checkpointed():
    model = samples.model()
    expected = samples.run(model).loss
    model.recomputation = Recomputation(1)
    with torch.no_grad():
        assert torch.equal(samples.run(model).loss, expected)


def test_negative_is_refused():
    with pytest.raises(UserError, match="0"):
        Recomputation(-1)
