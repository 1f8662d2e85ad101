"""The two sides of benchmarks/step.py: each turns a batch into a function that runs forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from batches import RaggedBatch
from torch import Tensor, nn

from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, PackedTokens

SideName = Literal["ours", "peer"]

DROPOUT = 0.1
PAD = 1


class Ours:
    """DeltaLM on packed tokens."""

    def __init__(self, preset: str, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.config = DeltaLMConfig.preset(preset, dropout=DROPOUT)
        self.model: nn.Module = DeltaLM(self.config).to(device, dtype)

    def prepare(self, batch: RaggedBatch) -> Callable[[int], Tensor]:
        """A function of the step number that runs forward and backward and returns the mean loss."""
        source = PackedTokens.from_sequences(list(map(torch.from_numpy, batch.source))).to(self.device)
        target = list(map(torch.from_numpy, batch.target))
        decoder_input = PackedTokens.from_sequences([row[:-1] for row in target]).to(self.device)
        labels = torch.cat([row[1:] for row in target]).to(self.device)

        def step(number: int) -> Tensor:
            sums = self.model(source, decoder_input, labels, dropout=DropoutState(seed=0, step=number))
            loss = sums.loss / batch.target_tokens
            loss.backward()
            return loss.detach()

        return step


class Peer:
    """Hugging Face's MBart, as users run it: padded rows, attention masks, SDPA, full logits.

    A DeltaLM block has two attentions and two feed-forwards, MBart's decoder layer two and one, so three
    of its layers stand for two blocks: 12 + 9 layers are as large as DeltaLM-base.
    """

    def __init__(self, preset: str, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import MBartConfig, MBartForConditionalGeneration

        self.device = device
        self.config = DeltaLMConfig.preset(preset)
        self.model: nn.Module = MBartForConditionalGeneration(
            MBartConfig(
                vocab_size=self.config.vocabulary_rows,
                d_model=self.config.width,
                encoder_ffn_dim=self.config.feed_forward_width,
                decoder_ffn_dim=self.config.feed_forward_width,
                encoder_attention_heads=self.config.num_heads,
                decoder_attention_heads=self.config.num_heads,
                encoder_layers=self.config.num_encoder_layers,
                decoder_layers=self.config.num_decoder_blocks * 3 // 2,
                max_position_embeddings=self.config.max_positions,
                dropout=DROPOUT,
                attn_implementation="sdpa",
            )
        )
        self.model.to(device, dtype).train()

    def prepare(self, batch: RaggedBatch) -> Callable[[int], Tensor]:
        """A function of the step number that runs forward and backward and returns the mean loss."""
        ignore = -100  # Hugging Face's label of a token without loss
        source = self._padded([torch.from_numpy(row) for row in batch.source], PAD)
        decoder_input = self._padded([torch.from_numpy(row[:-1]) for row in batch.target], PAD)
        labels = self._padded([torch.from_numpy(row[1:]) for row in batch.target], ignore)
        inputs = {
            "input_ids": source,
            "attention_mask": (source != PAD).long(),
            "decoder_input_ids": decoder_input,
            "decoder_attention_mask": (decoder_input != PAD).long(),
            "labels": labels,
        }

        def step(number: int) -> Tensor:
            loss = self.model(**inputs).loss
            loss.backward()
            return loss.detach()

        return step

    def _padded(self, rows: list[Tensor], value: int) -> Tensor:
        longest = max(map(len, rows))
        padded = [F.pad(row, (0, longest - len(row)), value=value) for row in rows]
        return torch.stack(padded).to(self.device)


SIDES: dict[SideName, type[Ours] | type[Peer]] = {"ours": Ours, "peer": Peer}
