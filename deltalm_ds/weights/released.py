"""The authors' released DeltaLM files, `{"weights": {...}}`."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from deltalm_ds.weights.interleaved import InterleavedSource
from deltalm_ds.weights.names import Naming


def _attention(module: str) -> dict[str, str]:
    return {
        "query": f"{module}.q_proj",
        "key": f"{module}.k_proj",
        "value": f"{module}.v_proj",
        "output": f"{module}.out_proj",
        "norm": f"{module}_layer_norm",
    }


def _feed_forward(module: str, norm: str) -> dict[str, str]:
    return {"fc1": f"{module}.fc1", "fc2": f"{module}.fc2", "norm": norm}


NAMING = Naming(
    modules={
        "embedding": "src_embedding.embed_tokens",
        "encoder.positions": "src_embedding.embed_positions",
        "decoder.positions": "tgt_embedding.embed_positions",
        "encoder.embedding_norm": "src_embedding.emb_layer_norm",
        "decoder.embedding_norm": "tgt_embedding.emb_layer_norm",
        "encoder.final_norm": "encoder.layer_norm",
        "decoder.final_norm": "decoder.layer_norm",
    },
    layers={"encoder.layers": "encoder.layers", "decoder.blocks": "decoder.layers"},
    operations={
        "attention": _attention("self_attn"),
        "feed_forward": _feed_forward("ffn", "final_layer_norm"),
        "self_attention": _attention("self_attn"),
        "first_feed_forward": _feed_forward("ffn_1", "ffn_layer_norm"),
        "cross_attention": _attention("encoder_attn"),
        "second_feed_forward": _feed_forward("ffn_2", "final_layer_norm"),
    },
)
"""Released name of each of our parameters."""

TABLE_COPIES = ("tgt_embedding.embed_tokens.weight",)
"""Names under which the file repeats the tied token table."""


def read_released(path: Path, tensors: dict[str, Tensor]) -> InterleavedSource:
    """The DeltaLM in a released file, whose `weights` are `tensors`.

    `ffn_1` is the feed-forward layer that runs first. The authors' first release had the two exchanged;
    nothing in the file shows which it is.
    """
    return InterleavedSource(
        path=path,
        layout="DeltaLM as released",
        tensors=tensors,
        naming=NAMING,
        known={},
        left_out={},
        table_copies=TABLE_COPIES,
    )
