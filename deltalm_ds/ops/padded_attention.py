"""Attention over packed sequences by way of padded rows, as torch's own GPU kernels want them.

Nothing waits for the GPU: rows are found by arithmetic on the cumulative lengths there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend_padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cumulative_lengths_q: Tensor,
    cumulative_lengths_k: Tensor,
    max_length_q: int,
    max_length_k: int,
    causal: bool,
) -> Tensor:
    """`ops.attention` without dropout; shapes as there."""
    if not len(query) or not len(key):
        return query * 0
    rows_q = _Rows(cumulative_lengths_q, max_length_q, len(query))
    rows_k = _Rows(cumulative_lengths_k, max_length_k, len(key))
    # Causal rows are as long on both sides: padded keys come after every query that counts.
    seen = None if causal or rows_k.is_full else rows_k.exists | (rows_k.lengths == 0)[:, None]
    out = F.scaled_dot_product_attention(
        rows_q.padded(query),
        rows_k.padded(key),
        rows_k.padded(value),
        attn_mask=None if seen is None else seen[:, None, None, :],
        is_causal=causal,
    )
    if seen is not None:  # sequences without keys looked at padding
        out = out.where((rows_k.lengths > 0)[:, None, None, None], 0)
    return rows_q.packed(out)


class _Rows:
    """Where the tokens of packed sequences lie in padded rows."""

    def __init__(self, cumulative_lengths: Tensor, longest: int, num_tokens: int) -> None:
        self.num_rows, self.longest = len(cumulative_lengths) - 1, longest
        self.is_full = num_tokens == self.num_rows * longest
        self.lengths = cumulative_lengths.diff()
        if self.is_full:
            return
        column = torch.arange(longest, device=cumulative_lengths.device)
        self.exists = column < self.lengths[:, None]
        first = cumulative_lengths[:-1, None].long()
        self.tokens = (first + column).clamp(max=num_tokens - 1)
        row = torch.arange(self.num_rows, device=cumulative_lengths.device)
        row_of_token = row.repeat_interleave(self.lengths, output_size=num_tokens)
        token = torch.arange(num_tokens, device=cumulative_lengths.device)
        self.place = row_of_token * longest + token - first[row_of_token, 0]

    def padded(self, packed: Tensor) -> Tensor:
        """[tokens, heads, width] to [rows, heads, longest, width]; padding repeats other tokens."""
        shape = (self.num_rows, self.longest, *packed.shape[1:])
        rows = packed.view(shape) if self.is_full else packed[self.tokens]
        return rows.transpose(1, 2)

    def packed(self, padded: Tensor) -> Tensor:
        """And back."""
        tokens = padded.transpose(1, 2).flatten(0, 1)
        return tokens if self.is_full else tokens[self.place]
