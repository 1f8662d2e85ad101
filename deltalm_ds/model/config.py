"""The shape and settings of a DeltaLM, saved beside every checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from deltalm_ds.errors import UserError

DecoderForm = Literal["interleaved", "standard"]

POSITION_OFFSET = 2
"""The first real token reads position row 2; row 1 belongs to padding and stays zero (fairseq's layout)."""

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "width": 128,
        "feed_forward_width": 512,
        "num_heads": 2,
        "num_encoder_layers": 4,
        "num_decoder_blocks": 2,
    },
    "mini": {
        "width": 320,
        "feed_forward_width": 1280,
        "num_heads": 5,
        "num_encoder_layers": 4,
        "num_decoder_blocks": 2,
    },
    "small": {
        "width": 512,
        "feed_forward_width": 2048,
        "num_heads": 8,
        "num_encoder_layers": 6,
        "num_decoder_blocks": 3,
    },
    "base": {},
    "large": {
        "width": 1024,
        "feed_forward_width": 4096,
        "num_heads": 16,
        "num_encoder_layers": 24,
        "num_decoder_blocks": 12,
        "embedding_layer_norm": False,
    },
    "xl": {
        "width": 2048,
        "feed_forward_width": 8192,
        "num_heads": 32,
        "num_encoder_layers": 24,
        "num_decoder_blocks": 12,
    },
    "xxl": {
        "width": 4096,
        "feed_forward_width": 16384,
        "num_heads": 64,
        "num_encoder_layers": 24,
        "num_decoder_blocks": 12,
    },
}


@dataclass(frozen=True, kw_only=True)
class DeltaLMConfig:
    """Everything needed to build a DeltaLM; the defaults are DeltaLM-base.

    Token ids follow fairseq's XLM-R dictionary: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3.
    """

    vocabulary_rows: int = 250_104
    """Rows of the token table, which is also the output projection."""
    width: int = 768
    """Features of a hidden state."""
    feed_forward_width: int = 3072
    """Features inside each feed-forward layer."""
    num_heads: int = 12
    """Attention heads; each has width / num_heads features."""
    num_encoder_layers: int = 12
    """Encoder layers."""
    num_decoder_blocks: int = 6
    """Interleaved decoder blocks; each holds two pre-trained encoder layers. 0: an encoder by itself."""
    decoder: DecoderForm = "interleaved"
    """interleaved: DeltaLM's blocks; standard: three ordinary decoder layers in place of each two of them."""
    max_positions: int = 512
    """Longest sequence in tokens; the position tables have two rows more."""
    embedding_layer_norm: bool = True
    """LayerNorm after the embeddings (XLM-R and the released base have it, the released large has not)."""
    pre_layer_norm: bool = False
    """Normalise before each sub-layer, with a last LayerNorm on both sides, instead of after it."""
    layer_norm_epsilon: float = 1e-5
    """Added to the variance in every LayerNorm."""
    dropout: float = 0.1
    """Share of features dropped after the embeddings and after every sub-layer."""
    attention_dropout: float = 0.0
    """Share of attention probabilities dropped."""
    activation_dropout: float = 0.0
    """Share of features dropped after GELU."""
    mask_id: int = 250_001
    """Id of `<mask>`."""
    first_sentinel_id: int = 250_002
    """Id of `<mask_0>`; the other sentinels follow."""
    num_sentinels: int = 100
    """Number of sentinels `<mask_0>`, `<mask_1>`, …"""

    def __post_init__(self) -> None:
        for name in ("vocabulary_rows", "width", "feed_forward_width", "num_heads", "max_positions"):
            if getattr(self, name) < 1:
                raise UserError(f"model: {name} must be at least 1, not {getattr(self, name)}")
        for name in ("num_encoder_layers", "num_decoder_blocks", "num_sentinels"):
            if getattr(self, name) < 0:
                raise UserError(f"model: {name} must not be negative, but is {getattr(self, name)}")
        if self.width % self.num_heads:
            raise UserError(
                f"model: width {self.width} is not a multiple of {self.num_heads} heads; change one of them"
            )
        if self.decoder not in get_args(DecoderForm):
            raise UserError(f"model: decoder must be interleaved or standard, not {self.decoder!r}")
        if self.decoder == "standard" and self.num_decoder_blocks % 2:
            raise UserError(
                "model: a standard decoder has three layers in place of two blocks, and num_decoder_blocks "
                f"is {self.num_decoder_blocks}; take an even number (all presets but small have one)"
            )
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"model: {name} must lie in [0, 1), not {getattr(self, name)}")
        if self.first_sentinel_id + self.num_sentinels > self.vocabulary_rows:
            raise UserError(
                f"model: {self.num_sentinels} sentinels from id {self.first_sentinel_id} do not fit into "
                f"{self.vocabulary_rows} vocabulary rows"
            )

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.width // self.num_heads

    @property
    def num_decoder_layers(self) -> int:
        """What the decoder is a stack of: its blocks, or three standard layers for each two of them."""
        return self.num_decoder_blocks * 3 // 2 if self.decoder == "standard" else self.num_decoder_blocks

    @property
    def position_rows(self) -> int:
        """Rows of each position table."""
        return self.max_positions + POSITION_OFFSET

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> DeltaLMConfig:
        """The named preset, one of PRESETS, with `overrides` on top."""
        if name not in PRESETS:
            raise UserError(f"unknown preset '{name}'; choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DeltaLMConfig:
        """The inverse of `to_dict`; unknown, missing or wrongly typed values are a UserError.

        Only `decoder` may be missing, see `with_decoder`.
        """
        values = with_decoder(values)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        wrong = sorted(values.keys() ^ fields.keys())
        if wrong:
            raise UserError(f"model configuration: unknown or missing {', '.join(wrong)}")
        for name, field in fields.items():
            expected = type(field.default)
            value = values[name]
            if type(value) is not expected and not (expected is float and type(value) is int):
                raise UserError(
                    f"model configuration: {name} must be of type {expected.__name__}, not {value!r}"
                )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields by name, ready for JSON."""
        return dataclasses.asdict(self)


def with_decoder(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved configuration's values; those from before `decoder` was a field are of an interleaved one."""
    return {"decoder": "interleaved", **saved}
