"""The encoder: XLM-R's, layer for layer."""

from __future__ import annotations

from torch import Tensor, nn

from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.embedding import EmbeddedStack
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import BatchDropout, Site
from deltalm_ds.model.recomputation import Recomputation
from deltalm_ds.model.sublayers import Attention, FeedForward


class EncoderLayer(nn.Module):
    """Self-attention over the whole sequence, then a feed-forward."""

    def __init__(self, config: DeltaLMConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer, Site.SELF_ATTENTION)
        self.feed_forward = FeedForward(config, layer, Site.FIRST_FEED_FORWARD)

    def forward(self, hidden: Tensor, source: PackedTokens, dropout: BatchDropout | None) -> Tensor:
        """[source_tokens, width] to the same shape."""
        hidden = self.attention(hidden, None, source, source, False, dropout)
        return self.feed_forward(hidden, dropout)


class Encoder(EmbeddedStack):
    """Embeddings and layers of the source side."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__(config, layer=0)
        self.layers = nn.ModuleList(
            EncoderLayer(config, number) for number in range(config.num_encoder_layers)
        )

    def forward(
        self,
        vectors: Tensor,
        source: PackedTokens,
        dropout: BatchDropout | None,
        recomputation: Recomputation,
    ) -> Tensor:
        """Token vectors [source_tokens, width] to the encoder's output [source_tokens, width]."""
        hidden = self.embed(vectors, source, dropout)
        for number, layer in enumerate(self.layers):
            hidden = recomputation.call(number, layer, hidden, source, dropout)
        return hidden if self.final_norm is None else self.final_norm(hidden)
