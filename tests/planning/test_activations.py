"""Kept activations against what autograd saves, on a CPU by its kernels and by torch's operations."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, PackedTokens
from deltalm_ds.ops import cross_entropy
from deltalm_ds.ops.native import kernels
from deltalm_ds.planning.activations import Activations, MicroBatch
from deltalm_ds.planning.shapes import shape_of

SIZES = {
    "width": 64,
    "feed_forward_width": 256,
    "num_heads": 4,
    "num_encoder_layers": 3,
    "num_decoder_blocks": 2,
    "vocabulary_rows": 96,
    "mask_id": 0,
    "first_sentinel_id": 0,
    "num_sentinels": 0,
}
BATCH = MicroBatch(3, 40, 24)
IDS = 16
"""Bytes a token of what BatchDropout has of it, which autograd does not see."""


def saved_bytes(config):
    """Of a forward pass, each storage once, without parameters and without what the loss keeps."""
    model = DeltaLM(config)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in parameters:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    def packed(length):
        return PackedTokens.from_sequences([torch.arange(length) % 90 + 4] * BATCH.num_samples)

    source, target = packed(BATCH.source_length), packed(BATCH.target_length)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(source, target, target.tokens, dropout=DropoutState(1, 2)).loss
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize(
    "changes", [{}, {"pre_layer_norm": True}, {"embedding_layer_norm": False}, {"decoder": "standard"}]
)
@pytest.mark.parametrize("by_kernels", [True, False])
def test_kept_activations(changes, by_kernels):
    config = DeltaLMConfig(**SIZES, **changes)
    activations = Activations(config, BATCH, 4, "cpu")
    expected = sum(map(activations.kept, shape_of(config).units))
    expected -= IDS * BATCH.tokens("both")
    if by_kernels:
        assert kernels.support(torch.zeros(1)), "needs a C compiler, as the project's CI has"
        found = saved_bytes(config)
    else:
        with mock.patch.object(kernels, "support", return_value=False):
            found = saved_bytes(config)
        # torch keeps a mask of every site but not of attention's heads: a byte a feature.
        sublayers = [unit for unit in shape_of(config).units if unit.kind not in ("table", "final-norm")]
        masks = [
            unit
            for unit in sublayers
            if unit.kind != ("positions" if config.embedding_layer_norm else "embedding-norm")
        ]
        expected += sum(BATCH.tokens(unit.side) * config.width for unit in masks)
    # What is left out: places of tokens, sequence boundaries.
    assert found == pytest.approx(expected, rel=0.03)


def test_torch_on_a_gpu_keeps_masks_and_a_second_context():
    config = DeltaLMConfig.preset("base")
    batch = MicroBatch(1, 512, 114)
    kernels_, torch_ = (Activations(config, batch, 2, way) for way in ("kernels", "torch"))
    layer = shape_of(config).units[3]
    assert (layer.kind, layer.side) == ("self-attention", "source")
    assert torch_.kept(layer) - kernels_.kept(layer) == 512 * 768 * (1 + 2)


def test_logits_are_those_of_a_chunk():
    config = DeltaLMConfig.preset("base")
    few, many = (Activations(config, MicroBatch(samples, 512, 114), 4, "cpu") for samples in (2, 64))
    assert few.logits == 228 * 250_104 * 4
    assert few.num_chunks == 1
    chunk = cross_entropy._CHUNK_BYTES["cpu"]
    assert many.chunk_tokens == chunk // (4 * 250_104) // 128 * 128
    assert chunk * 0.9 < many.logits <= chunk
    assert many.num_chunks == -(-64 * 114 // many.chunk_tokens)
