"""The same numbers as the published model code, from the same weights.

PARITY_DIR names another folder of the same form (released.pt, forward.npz, search.json).
"""

import numpy as np
import pytest
import torch
from published_model import FOLDER, published_config, published_model
from released_layout import released_names

from deltalm_ds.model import PackedTokens
from deltalm_ds.ops import IGNORE

PAD = 1


@pytest.fixture(scope="module")
def reference():
    with np.load(FOLDER / "forward.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def config():
    return published_config()


@pytest.fixture(scope="module")
def names(config):
    return released_names(config.num_encoder_layers, config.num_decoder_blocks)


@pytest.fixture
def model():
    return published_model()


def rows_of(padded: torch.Tensor) -> list[torch.Tensor]:
    return [row[row != PAD] for row in padded]


def batch(reference, order=None):
    """Source, decoder input and labels, packed in the given order of the batch's rows."""
    order = range(len(reference["src_tokens"])) if order is None else order
    source, decoder_input = rows_of(reference["src_tokens"]), rows_of(reference["prev_output_tokens"])
    labels = rows_of(reference["target"])
    return (
        PackedTokens.from_sequences([source[row] for row in order]),
        PackedTokens.from_sequences([decoder_input[row] for row in order]),
        torch.cat([labels[row] for row in order]),
    )


def test_encoder_output(model, reference):
    source, _, _ = batch(reference)
    expected = reference["encoder_out"][reference["src_tokens"] != PAD]
    torch.testing.assert_close(model.encode(source), expected, rtol=0, atol=2e-5)


def test_logits_of_the_padded_front_door(model, reference):
    logits = model.forward_padded(reference["src_tokens"], reference["prev_output_tokens"])
    real = reference["target"] != PAD
    torch.testing.assert_close(logits[real], reference["logits"][real], rtol=0, atol=2e-5)


def test_left_padding_is_the_same(model, reference):
    def to_the_left(padded):
        return torch.stack([torch.cat([row[row == PAD], row[row != PAD]]) for row in padded])

    right = model.forward_padded(reference["src_tokens"], reference["prev_output_tokens"])
    left = model.forward_padded(
        to_the_left(reference["src_tokens"]), to_the_left(reference["prev_output_tokens"])
    )
    real = reference["prev_output_tokens"] != PAD
    torch.testing.assert_close(
        left[to_the_left(reference["prev_output_tokens"]) != PAD], right[real], rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]])
def test_losses_and_gradients(model, reference, names, order):
    source, decoder_input, labels = batch(reference, order)
    sums = model(source, decoder_input, labels, label_smoothing=0.1)
    torch.testing.assert_close(sums.loss.double(), reference["loss_sum"].double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        sums.negative_log_likelihood.double(), reference["nll_sum"].double(), rtol=1e-5, atol=0
    )
    sums.loss.backward()
    expected = {ours: reference[f"grad/{theirs}"].double() for ours, theirs in names.items()}
    largest = max(gradient.norm() for gradient in expected.values())
    for name, parameter in model.named_parameters():
        error = (parameter.grad.double() - expected[name]).norm()
        assert error <= 1e-4 * expected[name].norm() + 3e-7 * largest, name


def test_each_sequence_alone_and_together(model, reference):
    source, decoder_input, labels = batch(reference)
    together = model(source, decoder_input, labels).token_negative_log_likelihood
    alone = [
        model(*batch(reference, [row])).token_negative_log_likelihood
        for row in range(len(reference["src_tokens"]))
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=2e-5)


def test_ignored_labels_have_no_loss(model, reference):
    source, decoder_input, labels = batch(reference)
    everything = model(source, decoder_input, labels)
    ignored = labels.clone()
    ignored[::3] = IGNORE
    some = model(source, decoder_input, ignored)
    expected = everything.token_negative_log_likelihood.clone()
    expected[::3] = 0
    torch.testing.assert_close(some.token_negative_log_likelihood, expected)
    torch.testing.assert_close(some.loss, expected.sum())
