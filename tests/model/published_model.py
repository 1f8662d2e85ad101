"""The tiny model of the published code, whose numbers are compared with.

PARITY_DIR names another folder of the same form (released.pt, forward.npz, search.json).
"""

import json
import os
from pathlib import Path

import torch
from released_layout import released_names

from deltalm_ds.model import DeltaLM, DeltaLMConfig

FOLDER = Path(os.environ.get("PARITY_DIR", Path(__file__).parent / "data" / "parity"))


def published_config() -> DeltaLMConfig:
    sizes = json.loads((FOLDER / "search.json").read_text())["config"]
    return DeltaLMConfig(
        vocabulary_rows=sizes["vocab_size"],
        width=sizes["hidden"],
        feed_forward_width=sizes["ffn"],
        num_heads=sizes["heads"],
        num_encoder_layers=sizes["encoder_layers"],
        num_decoder_blocks=sizes["decoder_layers"],
        max_positions=sizes["max_positions"],
        embedding_layer_norm=sizes["layernorm_embedding"],
        num_sentinels=0,
        first_sentinel_id=0,
    )


def published_model() -> DeltaLM:
    config = published_config()
    weights = torch.load(FOLDER / "released.pt", weights_only=True)["weights"]
    names = released_names(config.num_encoder_layers, config.num_decoder_blocks)
    model = DeltaLM(config)
    assert len(weights["src_embedding.embed_positions.weight"]) == config.position_rows
    model.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()}, strict=True)
    return model
