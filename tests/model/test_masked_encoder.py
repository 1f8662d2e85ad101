"""The encoder by itself against transformers' XLM-R, and what holds for packed models."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from model_samples import SAMPLE_IDS, STATE
from torch import Tensor
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from deltalm_ds.model import DeltaLMConfig, MaskedEncoder, PackedTokens
from deltalm_ds.model.masked_encoder import encoder_config
from deltalm_ds.ops import IGNORE, CrossEntropy
from deltalm_ds.weights.encoder import hugging_face_config, hugging_face_tensors

LENGTHS = [9, 3, 14, 1, 6]
PLACES = [[1, 4, 5, 8], [0, 2], [3, 13], [], [2]]
MASK = 50


def made_model(**changes: object) -> MaskedEncoder:
    """Small random weights; biases and norms are drawn too, so that each of them matters."""
    torch.manual_seed(0)
    sizes = {"width": 32, "feed_forward_width": 48, "num_heads": 4, "num_encoder_layers": 3}
    model = MaskedEncoder(encoder_config("tiny", MASK, max_positions=20, **{**sizes, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def sequences() -> tuple[list[Tensor], list[Tensor]]:
    """Sources, and the labels at `PLACES`."""
    generator = torch.Generator().manual_seed(1)
    sources = [torch.randint(4, MASK + 1, (length,), generator=generator) for length in LENGTHS]
    return sources, [torch.randint(4, MASK + 1, (len(places),), generator=generator) for places in PLACES]


def batch(rows: list[int]) -> tuple[PackedTokens, Tensor, Tensor]:
    """The samples `rows`, packed in that order."""
    sources, labels = sequences()
    starts = itertools.accumulate((LENGTHS[row] for row in rows), initial=0)
    places = [start + place for start, row in zip(starts, rows, strict=False) for place in PLACES[row]]
    packed = PackedTokens.from_sequences([sources[row] for row in rows], [SAMPLE_IDS[row] for row in rows])
    return packed, torch.tensor(places), torch.cat([labels[row] for row in rows])


def peer(model: MaskedEncoder) -> XLMRobertaForMaskedLM:
    """transformers' model with the same weights, every one of them given."""
    theirs = XLMRobertaForMaskedLM(XLMRobertaConfig(**hugging_face_config(model.config)))
    missing, unexpected = theirs.load_state_dict(hugging_face_tensors(model.state_dict()), strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} <= {"lm_head"}  # its tied second names
    assert all("decoder" in name for name in missing)
    theirs.tie_weights()
    return theirs.eval()


def test_logits_loss_and_gradients_are_transformers() -> None:
    model = made_model()
    theirs = peer(model)
    source, places, labels = batch(list(range(5)))
    expected = torch.cat(
        [theirs(row[None]).logits[0, rows] for row, rows in zip(sequences()[0], PLACES, strict=True)]
    )
    torch.testing.assert_close(model.logits(source, places), expected, rtol=0, atol=1e-5)
    loss = F.cross_entropy(expected, labels, reduction="sum")
    sums = model(source, places, labels)
    torch.testing.assert_close(sums.loss, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(sums.token_negative_log_likelihood.sum(), loss, rtol=1e-5, atol=0)
    loss.backward()
    sums.loss.backward()
    reference = dict(theirs.named_parameters(remove_duplicate=False))
    ours = hugging_face_tensors({name: parameter.grad for name, parameter in model.named_parameters()})
    largest = max(
        float(parameter.grad.norm()) for parameter in reference.values() if parameter.grad is not None
    )
    names = set(ours) - {"roberta.embeddings.token_type_embeddings.weight"}
    assert len(names) == len(list(model.parameters()))
    for name in names:
        error = (ours[name] - reference[name].grad).norm()
        assert error <= 1e-4 * reference[name].grad.norm() + 3e-7 * largest, name


def test_label_smoothing_is_torchs() -> None:
    model = made_model()
    source, places, labels = batch([0, 2])
    expected = F.cross_entropy(model.logits(source, places), labels, reduction="sum", label_smoothing=0.1)
    torch.testing.assert_close(model(source, places, labels, 0.1, "uniform").loss, expected)


def by_sample(rows: list[int], model: MaskedEncoder) -> dict[int, list[float]]:
    """The samples' losses a label, with dropout, when `rows` are packed together."""
    sums: CrossEntropy = model(*batch(rows), dropout=STATE)
    parts = sums.token_negative_log_likelihood.split([len(PLACES[row]) for row in rows])
    return {row: part.tolist() for row, part in zip(rows, parts, strict=True)}


def test_a_sample_has_the_same_loss_and_dropout_in_any_company() -> None:
    model = made_model(attention_dropout=0.2, activation_dropout=0.3)
    together = by_sample([0, 1, 2, 3, 4], model)
    other_order = by_sample([4, 2, 0], model)
    for row, losses in other_order.items():
        assert losses == pytest.approx(together[row], rel=1e-5)
    without = model(*batch([0])).token_negative_log_likelihood.tolist()
    assert without != pytest.approx(together[0], rel=1e-3)


def test_ignored_labels_have_no_loss() -> None:
    model = made_model()
    source, places, labels = batch([0, 1])
    some = labels.clone()
    some[2] = IGNORE
    losses = model(source, places, labels).token_negative_log_likelihood
    kept = model(source, places, some).token_negative_log_likelihood
    assert kept[2] == 0
    torch.testing.assert_close(kept[:2], losses[:2])
    nothing = model(source, torch.zeros(1, dtype=torch.int64), torch.tensor([IGNORE]))
    nothing.loss.backward()  # the micro-batch of a rank without samples
    assert nothing.loss == 0
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("preset", ["tiny", "small", "base", "large"])
def test_presets_take_the_encoders_half(preset: str) -> None:
    config, whole = encoder_config(preset, 250_001), DeltaLMConfig.preset(preset)
    assert config.vocabulary_rows == 250_002
    assert (config.num_decoder_blocks, config.num_sentinels) == (0, 0)
    assert (config.embedding_layer_norm, config.pre_layer_norm) == (True, False)
    for name in ("width", "feed_forward_width", "num_heads", "num_encoder_layers", "max_positions"):
        assert getattr(config, name) == getattr(whole, name)


def test_base_has_the_parameters_of_xlmr_base() -> None:
    with torch.device("meta"):
        model = MaskedEncoder(encoder_config("base", 250_001))
        theirs = XLMRobertaForMaskedLM(XLMRobertaConfig(**hugging_face_config(model.config)))
    token_type_row = 768
    assert sum(parameter.numel() for parameter in model.parameters()) + token_type_row == sum(
        parameter.numel() for parameter in theirs.parameters()
    )


def test_other_models_are_refused() -> None:
    for changes in ({"num_decoder_blocks": 1}, {"pre_layer_norm": True}, {"embedding_layer_norm": False}):
        with pytest.raises(ValueError, match="an encoder by itself"):
            made_model(**changes)
    with pytest.raises(ValueError, match="21 tokens, but the model has 20 positions"):
        made_model().logits(PackedTokens.from_sequences([[5] * 21]), torch.tensor([0]))
