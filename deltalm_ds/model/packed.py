"""Token-packed batches: sequences laid end to end, with their boundaries beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedTokens:
    """Sequences without padding.

    Only attention reads the boundaries; every other layer works on single tokens.
    """

    tokens: Tensor
    """[tokens] int64, all sequences one after another."""
    cumulative_lengths: Tensor
    """[sequences + 1] int32, on the same device: sequence i is tokens[c[i]:c[i + 1]]."""
    max_length: int
    """Length of the longest sequence, in tokens."""
    sample_ids: Tensor
    """[sequences] int64: global sample positions, which key the dropout bits."""

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[Tensor | Sequence[int]], sample_ids: Sequence[int] | None = None
    ) -> PackedTokens:
        """Pack token sequences; without `sample_ids` they are numbered from 0."""
        tensors = [torch.as_tensor(sequence, dtype=torch.int64) for sequence in sequences]
        lengths = torch.tensor([0, *(len(tensor) for tensor in tensors)])
        return cls(
            tokens=torch.cat(tensors) if tensors else torch.zeros(0, dtype=torch.int64),
            cumulative_lengths=lengths.cumsum(0).to(torch.int32),
            max_length=int(lengths.max()),
            sample_ids=torch.arange(len(tensors)) if sample_ids is None else torch.tensor(sample_ids),
        )

    @classmethod
    def from_padded(cls, tokens: Tensor, pad: int) -> PackedTokens:
        """Pack the rows of `tokens` [batch, length]; `pad` may stand on either side, and nowhere else."""
        real = tokens != pad
        lengths = real.sum(1)
        return cls(
            tokens=tokens[real],
            cumulative_lengths=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32),
            max_length=int(lengths.max()) if len(tokens) else 0,
            sample_ids=torch.arange(len(tokens), device=tokens.device),
        )

    @property
    def lengths(self) -> Tensor:
        """[sequences] int32."""
        return self.cumulative_lengths.diff()

    @property
    def sequence_of_token(self) -> Tensor:
        """[tokens] int64: which sequence each token belongs to."""
        indices = torch.arange(len(self.sample_ids), device=self.tokens.device)
        return torch.repeat_interleave(indices, self.lengths, output_size=len(self.tokens))

    @property
    def index_in_sequence(self) -> Tensor:
        """[tokens] int64: each token's place within its sequence, from 0."""
        starts = self.cumulative_lengths[:-1].to(torch.int64)[self.sequence_of_token]
        return torch.arange(len(self.tokens), device=self.tokens.device) - starts

    def to(self, device: torch.device | str) -> PackedTokens:
        """The same batch on another device."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            cumulative_lengths=self.cumulative_lengths.to(device),
            sample_ids=self.sample_ids.to(device),
        )
