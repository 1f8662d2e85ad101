"""Attention of single tokens to keys and values that several hypotheses share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deltalm_ds.ops.native import kernels


def attend_slots(joined: Tensor, keys: Tensor, values: Tensor, seen: Tensor, num_slots: int) -> Tensor:
    """softmax(query · keyᵀ / √head_width) · value over the slots that each row sees; no gradient.

    joined [sentences * hypotheses, …]: rows that begin with the queries [heads * head_width]. keys and
    values [sentences, heads, room, head_width], filled up to `num_slots`. seen [sentences, 1, hypotheses or
    1 or more, room], added to the scores: 0 where a slot is seen, else -inf; every row sees one slot at
    least. Returns [sentences * hypotheses, heads * head_width].
    """
    num_sentences, num_heads, _, head_width = keys.shape
    if joined.dtype == torch.float32 and kernels.support(joined, keys):
        return kernels.attend_slots(joined, keys, values, seen, num_slots)
    query = joined[:, : num_heads * head_width].view(num_sentences, -1, num_heads, head_width)
    context = F.scaled_dot_product_attention(
        query.transpose(1, 2),
        keys[:, :, :num_slots],
        values[:, :, :num_slots],
        attn_mask=seen[:, :, : query.shape[1], :num_slots],
    )
    return context.transpose(1, 2).flatten(2).flatten(0, 1)
