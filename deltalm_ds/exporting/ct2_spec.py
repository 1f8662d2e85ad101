"""A DeltaLM as CTranslate2's Transformer; its runtime needs no change.

CTranslate2 knows decoder layers of self-attention, cross-attention and feed-forward. An interleaved block
becomes two of them: A with the self-attention and the first feed-forward layer, B with the cross-attention
and the second. B's self-attention and A's cross-attention have zero weights. A could do without, but for the
runtime: it takes the first layer for all of them, and stops at a layer without keys of the source as soon as
one sentence of a batch is done before the others (4.8.5).

A post-LN layer still applies the LayerNorm of an attention that adds nothing. So the LayerNorm of the real
sub-layer before it stands there, and that sub-layer's own only normalises (gamma 1, beta 0). To normalise
twice is not quite to normalise once: the results differ by epsilon over the variance of what is normalised.
"""

from __future__ import annotations

import numpy as np
from ctranslate2.specs import LayerSpec, TransformerSpec, attention_spec, common_spec, transformer_spec

from deltalm_ds.exporting.model import ExportModel
from deltalm_ds.model.config import POSITION_OFFSET, DeltaLMConfig


def build_spec(model: ExportModel) -> TransformerSpec:
    """The specification with all weights, fp32; vocabularies and special tokens are the caller's."""
    config = model.config
    is_interleaved = config.decoder == "interleaved"
    spec = TransformerSpec.from_config(
        (config.num_encoder_layers, config.num_decoder_layers * (2 if is_interleaved else 1)),
        config.num_heads,
        pre_norm=config.pre_layer_norm,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=config.embedding_layer_norm,
    )
    weights = _Weights(model)
    for side, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        stack.scale_embeddings = False
        stack.position_encodings.encodings = weights.array(f"{side}.positions.weight")[POSITION_OFFSET:]
        if config.embedding_layer_norm:
            weights.norm(stack.layernorm_embedding, f"{side}.embedding_norm.")
        if config.pre_layer_norm:
            weights.norm(stack.layer_norm, f"{side}.final_norm.")
    table = weights.array("embedding.weight")
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = table
    spec.decoder.projection.weight = table
    for number, layer in enumerate(spec.encoder.layer):
        weights.self_attention(layer.self_attention, f"encoder.layers.{number}.attention.")
        weights.feed_forward(layer.ffn, f"encoder.layers.{number}.feed_forward.")
    for number in range(config.num_decoder_layers):
        block = f"decoder.blocks.{number}."
        if is_interleaved:
            weights.block(spec.decoder.layer[2 * number], spec.decoder.layer[2 * number + 1], block)
        else:
            weights.standard_layer(spec.decoder.layer[number], block)
    spec.config.layer_norm_epsilon = config.layer_norm_epsilon
    return spec


class _Weights:
    """Puts a model's weights into parts of a specification; prefixes are those of our names."""

    def __init__(self, model: ExportModel) -> None:
        self._tensors = model.weights
        self._config: DeltaLMConfig = model.config

    def array(self, name: str) -> np.ndarray:
        """One parameter, fp32, in memory of its own: quantizing changes arrays in place."""
        return self._tensors[name].float().numpy().copy()

    def norm(self, spec: common_spec.LayerNormSpec, prefix: str) -> None:
        """LayerNorm."""
        spec.gamma, spec.beta = self.array(f"{prefix}weight"), self.array(f"{prefix}bias")

    def self_attention(self, spec: attention_spec.MultiHeadAttentionSpec, prefix: str) -> None:
        """Query, key and value in one product, as the runtime wants them."""
        self._linear(spec.linear[0], prefix, "query", "key", "value")
        self._linear(spec.linear[1], prefix, "output")
        self.norm(spec.layer_norm, f"{prefix}norm_")

    def cross_attention(self, spec: attention_spec.MultiHeadAttentionSpec, prefix: str) -> None:
        """Key and value in one product."""
        self._linear(spec.linear[0], prefix, "query")
        self._linear(spec.linear[1], prefix, "key", "value")
        self._linear(spec.linear[2], prefix, "output")
        self.norm(spec.layer_norm, f"{prefix}norm_")

    def feed_forward(self, spec: transformer_spec.FeedForwardSpec, prefix: str) -> None:
        """fc1 and fc2."""
        self._linear(spec.linear_0, prefix, "fc1")
        self._linear(spec.linear_1, prefix, "fc2")
        self.norm(spec.layer_norm, f"{prefix}norm_")

    def standard_layer(self, spec: transformer_spec.TransformerDecoderLayerSpec, prefix: str) -> None:
        """One layer to one."""
        self.self_attention(spec.self_attention, f"{prefix}self_attention.")
        self.cross_attention(spec.attention, f"{prefix}cross_attention.")
        self.feed_forward(spec.ffn, f"{prefix}feed_forward.")

    def block(
        self,
        first: transformer_spec.TransformerDecoderLayerSpec,
        second: transformer_spec.TransformerDecoderLayerSpec,
        prefix: str,
    ) -> None:
        """An interleaved block as the layers A and B."""
        self.self_attention(first.self_attention, f"{prefix}self_attention.")
        self._no_attention(first.attention)
        self.feed_forward(first.ffn, f"{prefix}first_feed_forward.")
        self._no_attention(second.self_attention)
        self.cross_attention(second.attention, f"{prefix}cross_attention.")
        self.feed_forward(second.ffn, f"{prefix}second_feed_forward.")
        if not self._config.pre_layer_norm:
            _exchange_norms(first.self_attention, first.attention)
            _exchange_norms(first.ffn, second.self_attention)

    def _no_attention(self, spec: attention_spec.MultiHeadAttentionSpec) -> None:
        """An attention that adds nothing, with a LayerNorm that only normalises."""
        width = self._config.width
        rows = [3 * width, width] if len(spec.linear) == 2 else [width, 2 * width, width]
        for linear, outputs in zip(spec.linear, rows, strict=True):
            linear.weight = np.zeros((outputs, width), np.float32)
            linear.bias = np.zeros(outputs, np.float32)
        spec.layer_norm.gamma, spec.layer_norm.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    def _linear(self, spec: common_spec.LinearSpec, prefix: str, *operations: str) -> None:
        spec.weight = np.concatenate([self.array(f"{prefix}{name}_weight") for name in operations])
        spec.bias = np.concatenate([self.array(f"{prefix}{name}_bias") for name in operations])


def _exchange_norms(one: LayerSpec, other: LayerSpec) -> None:
    one.layer_norm, other.layer_norm = other.layer_norm, one.layer_norm
