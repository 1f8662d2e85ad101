"""An encoder by itself, trained to fill masks: XLM-R, the kind of model that DeltaLM starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from deltalm_ds import ops
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.embedding import TokenTable, check_length
from deltalm_ds.model.encoder import Encoder
from deltalm_ds.model.new_weights import Constant, initialise, parameter
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import BatchDropout, DropoutState
from deltalm_ds.model.recomputation import Recomputation
from deltalm_ds.model.sublayers import linear_parameters, norm_parameters
from deltalm_ds.ops import CrossEntropy, SmoothingForm

ResultT = TypeVar("ResultT")


def encoder_config(preset: str, mask_id: int, **overrides: Any) -> DeltaLMConfig:
    """The encoder's half of a preset, for a vocabulary that ends with `<mask>`; `overrides` on top.

    Without sentinels, for nothing would train them, and with XLM-R's LayerNorms whatever the preset has.
    """
    of_encoder = {
        "num_decoder_blocks": 0,
        "embedding_layer_norm": True,
        "vocabulary_rows": mask_id + 1,
        "mask_id": mask_id,
        "first_sentinel_id": mask_id + 1,
        "num_sentinels": 0,
    }
    return DeltaLMConfig.preset(preset, **{**of_encoder, **overrides})


class MaskedEncoder(nn.Module):
    """XLM-R (Conneau et al., "Unsupervised cross-lingual representation learning at scale", 2020).

    The encoder is DeltaLM's own, and dropout acts as there. `config` has no decoder blocks, and a LayerNorm
    after the embeddings and after each sub-layer.
    """

    def __init__(self, config: DeltaLMConfig, seed: int | None = None) -> None:
        """New weights, which `seed` names; None: a seed from torch's generator."""
        super().__init__()
        if config.num_decoder_blocks:
            raise ValueError(f"an encoder by itself has no {config.num_decoder_blocks} decoder blocks")
        if config.pre_layer_norm or not config.embedding_layer_norm:
            raise ValueError("an encoder by itself has XLM-R's LayerNorms, or nothing could read its weights")
        self.config = config
        self.recomputation = Recomputation()
        self.embedding = TokenTable(config)
        self.encoder = Encoder(config)
        self.head = MaskedHead(config)
        initialise(self, seed)

    def forward(
        self,
        source: PackedTokens,
        places: Tensor,
        labels: Tensor,
        label_smoothing: float = 0.0,
        smoothing_form: SmoothingForm = "fairseq",
        dropout: DropoutState | None = None,
    ) -> CrossEntropy:
        """The summed loss of `labels` [target_tokens] int64 at `places` [target_tokens] int64 of the source.

        Labels that are IGNORE have none.
        """
        hidden, table = self._encode(source, dropout)
        settings = (labels, label_smoothing, smoothing_form)
        return self.head(ops.linear_cross_entropy, hidden[places], table, *settings)

    def logits(self, source: PackedTokens, places: Tensor) -> Tensor:
        """[target_tokens, vocabulary_rows] at `places` [target_tokens] int64, without dropout."""
        hidden, table = self._encode(source, None)
        return self.head(ops.linear, hidden[places], table)

    def _encode(self, source: PackedTokens, dropout: DropoutState | None) -> tuple[Tensor, Tensor]:
        """The encoder's output [source_tokens, width], and the token table."""
        check_length(self.config, source)
        vectors, table = self.embedding(ops.look_up, source.tokens)
        hidden = self.encoder(vectors, source, BatchDropout.of(dropout, source), self.recomputation)
        return hidden, table


class MaskedHead(nn.Module):
    """Hidden states to logits: a layer with GELU and LayerNorm, then the tied table and a bias."""

    def __init__(self, config: DeltaLMConfig) -> None:
        super().__init__()
        self.epsilon = config.layer_norm_epsilon
        self.dense_weight, self.dense_bias = linear_parameters(config.width, config.width)
        self.norm_weight, self.norm_bias = norm_parameters(config.width)
        self.output_bias = parameter((config.vocabulary_rows,), Constant(0))

    def forward(
        self, operation: Callable[..., ResultT], hidden: Tensor, table: Tensor, *settings: object
    ) -> ResultT:
        """operation(transformed hidden [tokens, width], table, *settings, bias=the rows' bias)."""
        inner = ops.bias_gelu(ops.linear(hidden, self.dense_weight), self.dense_bias)
        transformed = ops.layer_norm(inner, self.norm_weight, self.norm_bias, self.epsilon)
        return operation(transformed, table, *settings, bias=self.output_bias)
