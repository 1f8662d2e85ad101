"""Writing an encoder by itself as a Hugging Face folder of XLM-R, from which a DeltaLM can start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.errors import UserError
from deltalm_ds.files import write_bytes_atomically, write_text_atomically
from deltalm_ds.model.config import DeltaLMConfig
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights.huggingface import MODEL_TYPES, POSITIONS, PREFIX, TOKEN_TYPES, naming
from deltalm_ds.weights.own import CONFIG_FILE, WEIGHTS_FILE
from deltalm_ds.weights.stored import OnDemand
from deltalm_ds.weights.streaming import write_weights

TOKENIZER_FILE = "sentencepiece.bpe.model"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

_HEAD = {
    "head.dense_weight": "lm_head.dense.weight",
    "head.dense_bias": "lm_head.dense.bias",
    "head.norm_weight": "lm_head.layer_norm.weight",
    "head.norm_bias": "lm_head.layer_norm.bias",
    "head.output_bias": "lm_head.bias",
}


def save_encoder(
    config: DeltaLMConfig, weights: Mapping[str, Tensor], tokenizer: str | Path, path: str | Path
) -> None:
    """Write a `MaskedEncoder` of these weights into the folder `path`, its tokenizer with it.

    config.json, model.safetensors, sentencepiece.bpe.model and tokenizer_config.json, which transformers
    loads as XLMRobertaForMaskedLM and XLMRobertaTokenizer. `tokenizer` is the SentencePiece file. Each file
    appears whole, config.json last. UserError if the folder cannot be written.
    """
    folder = Path(path)
    tokenizer_config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": config.max_positions}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes_atomically(folder / TOKENIZER_FILE, Path(tokenizer).read_bytes())
        write_text_atomically(folder / TOKENIZER_CONFIG_FILE, _json(tokenizer_config))
        write_weights(folder / WEIGHTS_FILE, hugging_face_tensors(weights), {})
        write_text_atomically(folder / CONFIG_FILE, _json(hugging_face_config(config)))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot save the encoder there ({error}); free some space or choose another folder"
        ) from error


def hugging_face_tensors(weights: Mapping[str, Tensor]) -> OnDemand:
    """Weights of a `MaskedEncoder` under transformers' names."""
    names = naming(PREFIX)
    ours = {_HEAD[name] if name in _HEAD else names.name_of(name): name for name in weights}

    def make(name: str) -> Tensor:
        if name == PREFIX + TOKEN_TYPES:
            # A single row that is added to every token; the position rows have all of it.
            return torch.zeros_like(weights[ours[PREFIX + POSITIONS]][:1])
        return weights[ours[name]].detach()

    return OnDemand([*ours, PREFIX + TOKEN_TYPES], make)


def hugging_face_config(config: DeltaLMConfig) -> dict[str, Any]:
    """What config.json says of a `MaskedEncoder`."""
    return {
        "architectures": ["XLMRobertaForMaskedLM"],
        "model_type": MODEL_TYPES[0],
        "vocab_size": config.vocabulary_rows,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward_width,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_encoder_layers,
        "max_position_embeddings": config.position_rows,
        "type_vocab_size": 1,
        "hidden_act": "gelu",
        "layer_norm_eps": config.layer_norm_epsilon,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": 0.02,  # for layers that a user of the encoder adds
        "bos_token_id": Vocabulary.BOS,
        "pad_token_id": Vocabulary.PAD,
        "eos_token_id": Vocabulary.EOS,
        "tie_word_embeddings": True,
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
