"""DeltaLM: an encoder and a decoder over one token table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deltalm_ds import ops
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.model.decoder import Decoder
from deltalm_ds.model.embedding import PAD, TokenTable, check_length
from deltalm_ds.model.encoder import Encoder
from deltalm_ds.model.new_weights import initialise
from deltalm_ds.model.packed import PackedTokens
from deltalm_ds.model.randomness import BatchDropout, DropoutState
from deltalm_ds.model.recomputation import Recomputation
from deltalm_ds.ops import CrossEntropy, SmoothingForm


class DeltaLM(nn.Module):
    """DeltaLM (Ma et al., "DeltaLM: Encoder-decoder pre-training for language generation and translation by
    augmenting pretrained multilingual encoders", 2021).

    Hidden states are packed: [tokens, width], with sequence boundaries beside them. Dropout acts where a
    `DropoutState` is given and nowhere else; `train()` and `eval()` change nothing.
    """

    def __init__(self, config: DeltaLMConfig, seed: int | None = None) -> None:
        """New weights, which `seed` names; None: a seed from torch's generator."""
        super().__init__()
        self.config = config
        self.recomputation = Recomputation()
        self.embedding = TokenTable(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        initialise(self, seed)

    def forward(
        self,
        source: PackedTokens,
        decoder_input: PackedTokens,
        labels: Tensor,
        label_smoothing: float = 0.0,
        smoothing_form: SmoothingForm = "fairseq",
        dropout: DropoutState | None = None,
    ) -> CrossEntropy:
        """The summed loss of `labels` [target_tokens] int64; tokens labelled IGNORE have none."""
        self._check_lengths(source, decoder_input)
        tokens = torch.cat([source.tokens, decoder_input.tokens])
        vectors, table = self.embedding(ops.look_up, tokens)
        source_vectors, target_vectors = vectors.split([len(source.tokens), len(decoder_input.tokens)])
        encoder_output = self.encoder(
            source_vectors, source, BatchDropout.of(dropout, source), self.recomputation
        )
        hidden = self.decoder(
            target_vectors,
            decoder_input,
            encoder_output,
            source,
            BatchDropout.of(dropout, decoder_input),
            self.recomputation,
        )
        return ops.linear_cross_entropy(hidden, table, labels, label_smoothing, smoothing_form)

    def encode(self, source: PackedTokens) -> Tensor:
        """The encoder's output [source_tokens, width], without dropout."""
        self._check_lengths(source)
        vectors, _ = self.embedding(ops.look_up, source.tokens)
        return self.encoder(vectors, source, None, self.recomputation)

    def decode(self, decoder_input: PackedTokens, encoder_output: Tensor, source: PackedTokens) -> Tensor:
        """The decoder's last hidden states [target_tokens, width], without dropout."""
        self._check_lengths(decoder_input)
        vectors, _ = self.embedding(ops.look_up, decoder_input.tokens)
        return self.decoder(vectors, decoder_input, encoder_output, source, None, self.recomputation)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [tokens, width] to [tokens, vocabulary_rows]."""
        return self.embedding(ops.linear, hidden)

    def forward_padded(self, source_tokens: Tensor, decoder_input: Tensor) -> Tensor:
        """Logits [batch, target, vocabulary_rows] of padded batches; zeros at padding.

        source_tokens [batch, source] and decoder_input [batch, target] int64, padded with `<pad>` on either
        side.
        """
        source = PackedTokens.from_padded(source_tokens, PAD)
        target = PackedTokens.from_padded(decoder_input, PAD)
        logits = self.logits(self.decode(target, self.encode(source), source))
        padded = logits.new_zeros(*decoder_input.shape, logits.shape[-1])
        padded[decoder_input != PAD] = logits
        return padded

    @classmethod
    def from_pretrained(
        cls, path: str | Path, config: DeltaLMConfig | None = None, *, seed: int = 0, **overrides: Any
    ) -> DeltaLM:
        """A model with the weights at `path`, whose layout is recognised.

        The other arguments are those of `deltalm_ds.weights.load_pretrained`.
        """
        from deltalm_ds.weights import load_pretrained

        loaded = load_pretrained(path, config, seed=seed, **overrides)
        with torch.device("meta"):
            model = cls(loaded.config)
        model.load_state_dict(loaded.state_dict, assign=True)
        return model

    def save_pretrained(self, path: str | Path) -> None:
        """Write config.json and model.safetensors into the folder `path`."""
        from deltalm_ds.weights import save_own

        save_own(self, path)

    def _check_lengths(self, *sides: PackedTokens) -> None:
        for packed in sides:
            check_length(self.config, packed)
