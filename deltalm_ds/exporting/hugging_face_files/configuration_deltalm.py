"""Sizes and special tokens of a DeltaLM, as config.json has them."""

from typing import Any

from transformers import PretrainedConfig


class DeltaLMConfig(PretrainedConfig):
    """The shape of a DeltaLM; the defaults are DeltaLM-base.

    Args:
        vocab_size: rows of the token table, which is also the output projection.
        d_model: features of a hidden state.
        encoder_layers, decoder_layers: how many layers encoder and decoder have.
        encoder_attention_heads, decoder_attention_heads: always the same number.
        encoder_ffn_dim, decoder_ffn_dim: features inside a feed-forward layer, always the same number.
        decoder_form: `interleaved` (self-attention, feed-forward, cross-attention, feed-forward) or
            `standard` (self-attention, cross-attention, feed-forward).
        max_position_embeddings: longest sequence in tokens; the position tables have two rows more.
        normalize_embedding: whether a LayerNorm follows the embeddings.
        normalize_before: whether LayerNorm stands before each sub-layer, with a last one behind all of them.
        layer_norm_eps: added to the variance in every LayerNorm.
        dropout, attention_dropout, activation_dropout: shares dropped in training, after the embeddings and
            every sub-layer; of attention probabilities; of features behind GELU.
    """

    model_type = "deltalm"
    keys_to_ignore_at_inference = ("past_key_values", "cache")
    attribute_map = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    def __init__(
        self,
        vocab_size: int = 250_104,
        d_model: int = 768,
        encoder_layers: int = 12,
        decoder_layers: int = 6,
        encoder_attention_heads: int = 12,
        decoder_attention_heads: int = 12,
        encoder_ffn_dim: int = 3072,
        decoder_ffn_dim: int = 3072,
        decoder_form: str = "interleaved",
        max_position_embeddings: int = 512,
        normalize_embedding: bool = True,
        normalize_before: bool = False,
        layer_norm_eps: float = 1e-5,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        use_cache: bool = True,
        bos_token_id: int = 0,
        pad_token_id: int = 1,
        eos_token_id: int = 2,
        decoder_start_token_id: int = 2,
        is_encoder_decoder: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.encoder_layers = encoder_layers
        self.decoder_layers = decoder_layers
        self.encoder_attention_heads = encoder_attention_heads
        self.decoder_attention_heads = decoder_attention_heads
        self.encoder_ffn_dim = encoder_ffn_dim
        self.decoder_ffn_dim = decoder_ffn_dim
        self.decoder_form = decoder_form
        self.max_position_embeddings = max_position_embeddings
        self.normalize_embedding = normalize_embedding
        self.normalize_before = normalize_before
        self.layer_norm_eps = layer_norm_eps
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.activation_dropout = activation_dropout
        self.use_cache = use_cache
        super().__init__(
            bos_token_id=bos_token_id,
            pad_token_id=pad_token_id,
            eos_token_id=eos_token_id,
            decoder_start_token_id=decoder_start_token_id,
            is_encoder_decoder=is_encoder_decoder,
            **kwargs,
        )
