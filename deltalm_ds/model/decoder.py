"""The decoder: interleaved, each block with a place for two pre-trained encoder layers (DeltaLM, section 2),
or standard, to compare with it.
"""

from __future__ import annotations

from torch import Tensor, nn

from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.embedding import EmbeddedStack
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import BatchDropout, Site
from deltalm_ds.model.recomputation import Recomputation
from deltalm_ds.model.sublayers import Attention, FeedForward


class DecoderBlock(nn.Module):
    """Causal self-attention, feed-forward, cross-attention, feed-forward."""

    def __init__(self, config: DeltaLMConfig, layer: int) -> None:
        super().__init__()
        self.self_attention = Attention(config, layer, Site.SELF_ATTENTION)
        self.first_feed_forward = FeedForward(config, layer, Site.FIRST_FEED_FORWARD)
        self.cross_attention = Attention(config, layer, Site.CROSS_ATTENTION)
        self.second_feed_forward = FeedForward(config, layer, Site.SECOND_FEED_FORWARD)

    def forward(
        self,
        hidden: Tensor,
        target: PackedTokens,
        encoder_output: Tensor,
        source: PackedTokens,
        dropout: BatchDropout | None,
    ) -> Tensor:
        """hidden [target_tokens, width] and encoder_output [source_tokens, width] to hidden's shape."""
        hidden = self.self_attention(hidden, None, target, target, True, dropout)
        hidden = self.first_feed_forward(hidden, dropout)
        hidden = self.cross_attention(hidden, encoder_output, target, source, False, dropout)
        return self.second_feed_forward(hidden, dropout)


class StandardDecoderLayer(nn.Module):
    """Causal self-attention, cross-attention, feed-forward (Vaswani et al., 2017).

    Where feed_forward_width is 4 * width, three layers have the matrices of two blocks; of biases and
    LayerNorms they have 5 * width parameters more.
    """

    def __init__(self, config: DeltaLMConfig, layer: int) -> None:
        super().__init__()
        self.self_attention = Attention(config, layer, Site.SELF_ATTENTION)
        self.cross_attention = Attention(config, layer, Site.CROSS_ATTENTION)
        self.feed_forward = FeedForward(config, layer, Site.SECOND_FEED_FORWARD)

    def forward(
        self,
        hidden: Tensor,
        target: PackedTokens,
        encoder_output: Tensor,
        source: PackedTokens,
        dropout: BatchDropout | None,
    ) -> Tensor:
        """hidden [target_tokens, width] and encoder_output [source_tokens, width] to hidden's shape."""
        hidden = self.self_attention(hidden, None, target, target, True, dropout)
        hidden = self.cross_attention(hidden, encoder_output, target, source, False, dropout)
        return self.feed_forward(hidden, dropout)


class Decoder(EmbeddedStack):
    """Embeddings and blocks, or standard layers, of the target side."""

    def __init__(self, config: DeltaLMConfig) -> None:
        # Numbered behind the encoder's layers, so that no two layers share dropout bits.
        super().__init__(config, layer=config.num_encoder_layers)
        block = StandardDecoderLayer if config.decoder == "standard" else DecoderBlock
        self.blocks = nn.ModuleList(
            block(config, self.layer + number) for number in range(config.num_decoder_layers)
        )

    def forward(
        self,
        vectors: Tensor,
        target: PackedTokens,
        encoder_output: Tensor,
        source: PackedTokens,
        dropout: BatchDropout | None,
        recomputation: Recomputation,
    ) -> Tensor:
        """Token vectors [target_tokens, width] to the last hidden states [target_tokens, width]."""
        hidden = self.embed(vectors, target, dropout)
        for number, block in enumerate(self.blocks):
            hidden = recomputation.call(number, block, hidden, target, encoder_output, source, dropout)
        return hidden if self.final_norm is None else self.final_norm(hidden)
