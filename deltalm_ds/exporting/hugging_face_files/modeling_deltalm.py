"""DeltaLM for transformers: an encoder as XLM-R's, and a decoder whose blocks each hold two of its layers.

Ma et al., "DeltaLM: Encoder-decoder pre-training for language generation and translation by augmenting
pretrained multilingual encoders", 2021. Shapes: hidden states are [batch, length, d_model].
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.generation.logits_process import LogitsProcessor
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import ModelOutput

from .configuration_deltalm import DeltaLMConfig

# Newer releases of transformers call the cache `cache`, older ones `past_key_values`.
_CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"

_POSITION_OFFSET = 2  # the first real token reads position row 2; row 1 belongs to padding
_NO_LABEL = -100


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__()
        self.num_heads, self.dropout = config.encoder_attention_heads, config.attention_dropout
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, heads, length, head width] of the states that are attended to."""
        return self._split(self.k_proj(memory)), self._split(self.v_proj(memory))

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """`mask` [batch, 1, 1 or length, keys] is true where a query may look."""
        context = F.scaled_dot_product_attention(
            self._split(self.q_proj(hidden)),
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(context.transpose(1, 2).flatten(2))

    def _split(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """What encoder layers and decoder blocks share: residual connections and feed-forward layers."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__()
        self.normalize_before = config.normalize_before
        self.dropout, self.activation_dropout = config.dropout, config.activation_dropout

    def open(self, hidden: Tensor, norm: nn.LayerNorm) -> Tensor:
        """What a sub-layer reads."""
        return norm(hidden) if self.normalize_before else hidden

    def close(self, residual: Tensor, out: Tensor, norm: nn.LayerNorm) -> Tensor:
        """What a sub-layer leaves: LN(x + f(x)), or x + f(LN(x))."""
        hidden = residual + F.dropout(out, self.dropout, self.training)
        return hidden if self.normalize_before else norm(hidden)

    def feed_forward(self, hidden: Tensor, fc1: nn.Linear, fc2: nn.Linear, norm: nn.LayerNorm) -> Tensor:
        """The whole sub-layer."""
        inner = F.dropout(F.gelu(fc1(self.open(hidden, norm))), self.activation_dropout, self.training)
        return self.close(hidden, fc2(inner), norm)


class EncoderLayer(Layer):
    """Self-attention, then a feed-forward layer."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__(config)
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = _norm(config)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = _norm(config)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """`mask` [batch, 1, 1, length] is true at real tokens."""
        opened = self.open(hidden, self.self_attn_layer_norm)
        out = self.self_attn(opened, *self.self_attn.keys_and_values(opened), mask)
        hidden = self.close(hidden, out, self.self_attn_layer_norm)
        return self.feed_forward(hidden, self.fc1, self.fc2, self.final_layer_norm)


class DecoderBlock(Layer):
    """Causal self-attention, a feed-forward layer in the interleaved form, cross-attention, feed-forward."""

    def __init__(self, config: DeltaLMConfig, number: int) -> None:
        super().__init__(config)
        self.number = number
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = _norm(config)
        self.is_interleaved = config.decoder_form == "interleaved"
        if self.is_interleaved:
            self.fc3 = nn.Linear(config.d_model, config.decoder_ffn_dim)
            self.fc4 = nn.Linear(config.decoder_ffn_dim, config.d_model)
            self.ffn_layer_norm = _norm(config)
        self.encoder_attn = Attention(config)
        self.encoder_attn_layer_norm = _norm(config)
        self.fc1 = nn.Linear(config.d_model, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, config.d_model)
        self.final_layer_norm = _norm(config)

    def forward(
        self,
        hidden: Tensor,
        memory: Tensor,
        mask: Tensor,
        memory_mask: Tensor,
        cache: EncoderDecoderCache | None,
    ) -> Tensor:
        """`memory` is the encoder's output; the masks are true where a query may look."""
        opened = self.open(hidden, self.self_attn_layer_norm)
        keys, values = self.self_attn.keys_and_values(opened)
        if cache is not None:
            keys, values = cache.self_attention_cache.update(keys, values, self.number)
        out = self.self_attn(opened, keys, values, mask)
        hidden = self.close(hidden, out, self.self_attn_layer_norm)
        if self.is_interleaved:
            hidden = self.feed_forward(hidden, self.fc3, self.fc4, self.ffn_layer_norm)
        opened = self.open(hidden, self.encoder_attn_layer_norm)
        out = self.encoder_attn(opened, *self._memory_keys_and_values(memory, cache), memory_mask)
        hidden = self.close(hidden, out, self.encoder_attn_layer_norm)
        return self.feed_forward(hidden, self.fc1, self.fc2, self.final_layer_norm)

    def _memory_keys_and_values(
        self, memory: Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[Tensor, Tensor]:
        if cache is None:
            return self.encoder_attn.keys_and_values(memory)
        if cache.is_updated.get(self.number):  # they are the same in every step
            layer = cache.cross_attention_cache.layers[self.number]
            return layer.keys, layer.values
        cache.is_updated[self.number] = True
        keys, values = self.encoder_attn.keys_and_values(memory)
        return cache.cross_attention_cache.update(keys, values, self.number)


class Stack(nn.Module):
    """What encoder and decoder share: positions, the embeddings' LayerNorm, the last LayerNorm."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.embed_positions = nn.Embedding(config.max_position_embeddings + _POSITION_OFFSET, config.d_model)
        self.layernorm_embedding = _norm(config) if config.normalize_embedding else nn.Identity()
        self.layer_norm = _norm(config) if config.normalize_before else nn.Identity()
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Any = None  # set together, by transformers

    def embed(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Token vectors [batch, length, d_model] at position rows [batch, length]."""
        hidden = self.layernorm_embedding(vectors + self.embed_positions(positions))
        return F.dropout(hidden, self.dropout, self.training)

    def run(self, layer: nn.Module, *inputs: Any) -> Tensor:
        """layer(*inputs), computed a second time in the backward pass where that is asked for."""
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(layer.__call__, *inputs)
        return layer(*inputs)


@dataclass
class EncoderOutput(ModelOutput):
    """What the decoder reads."""

    last_hidden_state: Tensor | None = None
    """[batch, source, d_model]."""
    mask: Tensor | None = None
    """[batch, source] bool: real tokens. `generate` itself passes on only a mask that it was given."""


class Encoder(Stack):
    """The source side; it owns the token table that all sides share."""

    main_input_name = "input_ids"

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__(config)
        self.pad_token_id = config.pad_token_id
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> EncoderOutput:
        """Tokens [batch, length], padded on either side; without a mask, `<pad>` is padding."""
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if attention_mask is not None:
            mask = attention_mask.bool()
        elif input_ids is not None:
            mask = input_ids != self.pad_token_id
        else:
            mask = inputs_embeds.new_ones(inputs_embeds.shape[:2], dtype=torch.bool)
        hidden = self.embed(inputs_embeds, _positions(mask))
        for layer in self.layers:
            hidden = self.run(layer, hidden, mask[:, None, None, :])
        return EncoderOutput(last_hidden_state=self.layer_norm(hidden), mask=mask)


class Decoder(Stack):
    """The target side, over token vectors."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderBlock(config, number) for number in range(config.decoder_layers))

    def forward(
        self,
        vectors: Tensor,
        mask: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        cache: EncoderDecoderCache | None,
    ) -> Tensor:
        """`mask` [batch, earlier + length] is true at real tokens; `cache` holds the `earlier` ones."""
        length = vectors.shape[1]
        hidden = self.embed(vectors, _positions(mask)[:, -length:])
        total = mask.shape[1]
        places = torch.arange(total, device=mask.device)
        queries = places[-length:, None]
        # Padding before the first real token sees itself, for a softmax over nothing is not a number.
        seen = (places <= queries) & mask[:, None, :] | (places == queries)
        for block in self.layers:
            hidden = self.run(block, hidden, memory, seen[:, None], memory_mask[:, None, None, :], cache)
        return self.layer_norm(hidden)


class TargetLength(LogitsProcessor):
    """Ends each target where the model's search ends it, and never writes `<pad>`.

    A target has at most limits[i] tokens before `</s>`, whose own score then still counts, and at least
    `min_length` unless its limit is less.
    """

    def __init__(self, limits: Tensor, min_length: int, prompt: int, eos: int, pad: int) -> None:
        self.limits, self.min_length, self.prompt, self.eos, self.pad = limits, min_length, prompt, eos, pad

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [rows, vocabulary] of the next token."""
        step = input_ids.shape[1] - self.prompt
        limits = self.limits.repeat_interleave(scores.shape[0] // len(self.limits))  # rows of one source
        is_last = (step >= limits)[:, None]
        is_eos = torch.arange(scores.shape[1], device=scores.device) == self.eos
        forbidden = torch.where(is_last, ~is_eos, is_eos & (step < self.min_length))
        forbidden[:, self.pad] = True
        return scores.masked_fill(forbidden, -torch.inf)


class DeltaLMPreTrainedModel(PreTrainedModel):
    """What transformers must know of every DeltaLM."""

    config_class = DeltaLMConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _no_split_modules = ("EncoderLayer", "DecoderBlock")
    _supports_sdpa = True
    _supports_cache_class = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.d_model**-0.5)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class DeltaLMForConditionalGeneration(DeltaLMPreTrainedModel, GenerationMixin):
    """DeltaLM with its output projection, the token table itself: one tensor serves all three places."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> Encoder:
        """The source side."""
        return self.encoder

    def get_decoder(self, modality: str | None = None) -> Decoder:
        """The target side."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """The token table."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token table, everywhere."""
        self.encoder.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: EncoderOutput | None = None,
        cache: EncoderDecoderCache | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> Seq2SeqLMOutput | tuple[Tensor, ...]:
        """Logits [batch, target, vocab_size], and the mean loss of `labels` where there are any.

        input_ids [batch, source] and decoder_input_ids [batch, target] may be padded on either side. `labels`
        [batch, target] are `tokens </s>`, with -100 for what has no loss; decoder_input_ids follow from them.
        """
        cache = past_key_values if cache is None else cache
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds)
        memory = encoder_outputs.last_hidden_state
        memory_mask = encoder_outputs.mask if attention_mask is None else attention_mask.bool()
        if labels is not None and decoder_input_ids is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if decoder_input_ids is None:
            raise ValueError("give decoder_input_ids, or labels to make them of")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if labels is not None or (self.training and torch.is_grad_enabled()):
            use_cache = False
        if use_cache and cache is None:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        hidden = self.decoder(
            self.encoder.embed_tokens(decoder_input_ids),
            self._target_mask(decoder_attention_mask, decoder_input_ids, cache),
            memory,
            memory_mask,
            cache,
        )
        logits = F.linear(hidden, self.encoder.embed_tokens.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=_NO_LABEL)
        output = Seq2SeqLMOutput(
            loss=loss, logits=logits, encoder_last_hidden_state=memory, **{_CACHE: cache}
        )
        return output.to_tuple() if return_dict is False else output

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """`</s> tokens` of `tokens </s>`, both [batch, target]."""
        start = labels.new_full((len(labels), 1), self.config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], 1)
        return shifted.masked_fill(shifted == _NO_LABEL, self.config.pad_token_id)

    def _target_mask(self, mask: Tensor | None, tokens: Tensor, cache: EncoderDecoderCache | None) -> Tensor:
        """Where real tokens are [batch, earlier + target], the `earlier` ones of the cache among them."""
        num_earlier = 0 if cache is None else cache.get_seq_length()
        if mask is not None:
            return mask.bool()
        if not num_earlier:
            return tokens != self.config.pad_token_id
        return tokens.new_ones(len(tokens), num_earlier + tokens.shape[1], dtype=torch.bool)

    def _get_logits_processor(
        self,
        generation_config: Any,
        input_ids_seq_length: int | None = None,
        encoder_input_ids: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        processors = super()._get_logits_processor(
            generation_config, input_ids_seq_length, encoder_input_ids, *args, **kwargs
        )
        a = getattr(generation_config, "max_length_a", None)
        b = getattr(generation_config, "max_length_b", None)
        if encoder_input_ids is not None and encoder_input_ids.dim() == 2 and a is not None and b is not None:
            prompt = input_ids_seq_length or 1
            lengths = (encoder_input_ids != self.config.pad_token_id).sum(1)
            limits = (a * lengths.double() + b).long().clamp(max=generation_config.max_length - prompt - 1)
            min_length = getattr(generation_config, "min_target_length", 0)
            eos, pad = self.config.eos_token_id, self.config.pad_token_id
            processors.append(TargetLength(limits, min_length, prompt, eos, pad))
        return processors


def _norm(config: DeltaLMConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)


def _positions(mask: Tensor) -> Tensor:
    """Position rows [batch, length]: real tokens count from 2, padding has row 1."""
    return mask.long().cumsum(1) * mask + _POSITION_OFFSET - 1
