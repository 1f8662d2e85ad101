"""What a standard decoder's cross-attention starts from; an encoder has none to give."""

from __future__ import annotations

from typing import Literal

CrossAttentionStart = Literal["random", "copied"]
"""random: as in a new model, which is XLM's way; copied: as the self-attention of the same layer."""
