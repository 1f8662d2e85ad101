"""What the passes keep and need for a moment, module by module, from the operations' own code (ops/).

Counted in tensors: "hidden" is [tokens, width], "inner" [tokens, feed_forward_width]. A sub-layer's output is
counted with the sub-layer, so its input belongs to the one before. Statistics of LayerNorm (two fp32 a token)
and of attention (one fp32 a token and head) are counted too; what is smaller is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.shapes import Unit

Way = Literal["cpu", "torch", "kernels"]
"""Who computes: the CPU's kernels, torch on a GPU, or our kernels on a GPU."""

_FP32 = 4
# Bytes of logits at once, and of one block of them: ops/cross_entropy.py.
_CHUNK_BYTES = {"cpu": 1 << 30, "torch": 7 << 28, "kernels": 7 << 28}
_BLOCK_BYTES = {"cpu": 36 << 20, "torch": 1 << 28, "kernels": 7 << 28}
_CHUNK_UNIT = 128
# Bytes a feature that ops/philox.py holds at once in torch (counted by torch's profiler, on a CPU).
_PHILOX_BYTES = 11


@dataclass(frozen=True)
class MicroBatch:
    """Sequences of one length on each side: the longest that a run has."""

    num_samples: int
    source_length: int
    target_length: int

    def tokens(self, side: str) -> int:
        """Of a side, or of "both"."""
        sources, targets = self.num_samples * self.source_length, self.num_samples * self.target_length
        return {"source": sources, "target": targets}.get(side, sources + targets)


@dataclass(frozen=True)
class Activations:
    """Bytes of a micro-batch in a model."""

    config: DeltaLMConfig
    batch: MicroBatch
    number_bytes: int
    """Of one number of a hidden state: 4 in fp32, 2 in bf16."""
    way: Way

    def hidden(self, side: str) -> float:
        """One hidden state [tokens, width]."""
        return float(self.batch.tokens(side) * self.config.width * self.number_bytes)

    def inner(self, side: str) -> float:
        """One state inside a feed-forward layer."""
        return float(self.batch.tokens(side) * self.config.feed_forward_width * self.number_bytes)

    def kept(self, unit: Unit) -> float:
        """What a module keeps for its backward pass, its output among it."""
        hidden, tokens = self.hidden(unit.side), self.batch.tokens(unit.side)
        statistics = 2 * _FP32 * tokens
        if unit.kind == "table":
            return 8.0 * tokens  # ids
        if unit.kind == "positions":
            # Each token's sample and place, for dropout; its output, unless a LayerNorm comes first.
            return 16.0 * tokens + (0 if self.config.embedding_layer_norm else hidden + self._mask(unit.side))
        if unit.kind == "embedding-norm":
            # The sum of vectors and positions, and what dropout makes of the norm's output.
            return 2 * hidden + statistics + self._mask(unit.side)
        if unit.kind == "final-norm":
            return hidden + statistics
        if unit.kind == "feed-forward":
            # The first layer's product, the sum that is normalised, the output.
            return self.inner(unit.side) + 2 * hidden + statistics + self._mask(unit.side)
        keys = self.hidden("source") if unit.kind == "cross-attention" else hidden
        # Query, key, value, context, the sum that is normalised, the output; torch packs the context anew.
        contexts = 2 if self.way == "torch" else 1
        log_sums = _FP32 * tokens * self.config.num_heads
        return 2 * keys + (3 + contexts) * hidden + log_sums + statistics + self._mask(unit.side)

    def _mask(self, side: str) -> float:
        """torch keeps which features survive, a byte each; kernels make the mask again."""
        if self.way != "torch" or not self.config.dropout:
            return 0.0
        return float(self.batch.tokens(side) * self.config.width)

    def forward_extra(self, unit: Unit) -> float:
        """What a module needs for a moment in its forward pass."""
        hidden = self.hidden(unit.side)
        if self.way != "torch" or not self.config.dropout:
            return hidden
        return hidden + _PHILOX_BYTES * self.batch.tokens(unit.side) * self.config.width

    def backward_extra(self, unit: Unit) -> float:
        """What a module needs for a moment in its backward pass, beside gradients of parameters."""
        hidden = self.hidden(unit.side)
        if unit.kind == "feed-forward":
            # The gradient of the sum, that inside the layer, that of its input; on a GPU GELU once more.
            return 2 * hidden + self.inner(unit.side) * (1 if self.way == "cpu" else 2)
        if unit.kind in ("self-attention", "cross-attention"):
            keys = self.hidden("source") if unit.kind == "cross-attention" else hidden
            # Gradients of the sum, the context, query, key and value.
            return 3 * hidden + 2 * keys
        return hidden

    @property
    def chunk_tokens(self) -> int:
        """Tokens whose logits exist at once."""
        row = self.number_bytes * self.config.vocabulary_rows
        tokens = max(1, _CHUNK_BYTES[self.way] // row)
        return tokens - tokens % _CHUNK_UNIT if tokens > _CHUNK_UNIT else tokens

    @property
    def num_chunks(self) -> int:
        """Into which the loss cuts a micro-batch."""
        return -(-self.batch.tokens("target") // self.chunk_tokens)

    @property
    def logits(self) -> float:
        """Of one chunk, and fp32 copies of a block while it is worked on."""
        tokens = min(self.batch.tokens("target"), self.chunk_tokens)
        chunk = float(tokens * self.config.vocabulary_rows * self.number_bytes)
        if self.way != "torch":
            return chunk
        return chunk + 2 * min(_BLOCK_BYTES[self.way], chunk) * _FP32 / self.number_bytes
