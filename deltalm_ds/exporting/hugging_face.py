"""A self-contained Hugging Face folder: transformers loads it offline, without this package."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deltalm_ds.exporting.model import ExportModel
from deltalm_ds.exporting.targets import new_folder
from deltalm_ds.files import write_bytes_atomically, write_text_atomically
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights.description import TOKENIZER_FILE, Description
from deltalm_ds.weights.exported import MODEL_TYPE, NAMING, sizes_for_transformers
from deltalm_ds.weights.own import WEIGHTS_FILE
from deltalm_ds.weights.stored import OnDemand
from deltalm_ds.weights.streaming import write_weights

CODE = Path(__file__).parent / "hugging_face_files"
"""The modelling, configuration and tokenizer files that every folder gets."""

_AUTO_CONFIG = "configuration_deltalm.DeltaLMConfig"
_AUTO_MODEL = "modeling_deltalm.DeltaLMForConditionalGeneration"
_AUTO_TOKENIZER = ["tokenization_deltalm.DeltaLMTokenizer", None]
_SPECIAL_IDS = {
    "bos_token_id": Vocabulary.BOS,
    "pad_token_id": Vocabulary.PAD,
    "eos_token_id": Vocabulary.EOS,
    "decoder_start_token_id": Vocabulary.EOS,
}


def write_hugging_face(model: ExportModel, target: Path) -> None:
    """Write `model` and its tokenizer to the new folder `target`.

    UserError where the model has no tokenizer, or where something is at `target`.
    """
    description = model.described()
    ours = {NAMING.name_of(name): name for name in model.weights}
    tensors = OnDemand(ours, lambda name: model.weights[ours[name]])
    with new_folder(target) as folder:
        write_weights(folder / WEIGHTS_FILE, tensors, {})
        write_bytes_atomically(folder / TOKENIZER_FILE, description.tokenizer.read_bytes())
        for name, content in (
            ("config.json", _config(model)),
            ("generation_config.json", _generation(model, description)),
            ("tokenizer_config.json", _tokenizer(model, description)),
        ):
            write_text_atomically(folder / name, json.dumps(content, indent=2) + "\n")
        for path in sorted(CODE.glob("*_deltalm.py")):
            write_bytes_atomically(folder / path.name, path.read_bytes())


def _config(model: ExportModel) -> dict[str, Any]:
    dtype = str(model.weights["embedding.weight"].dtype).removeprefix("torch.")
    return {
        "architectures": ["DeltaLMForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": _AUTO_CONFIG,
            "AutoModelForSeq2SeqLM": _AUTO_MODEL,
            "AutoTokenizer": _AUTO_TOKENIZER,
        },
        "model_type": MODEL_TYPE,
        "is_encoder_decoder": True,
        **sizes_for_transformers(model.config),
        **_SPECIAL_IDS,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
    }


def _generation(model: ExportModel, description: Description) -> dict[str, Any]:
    """Our search's settings under transformers' names, and the lengths that our modelling file reads."""
    search: Mapping[str, Any] = {} if description.task is None else description.task.search
    a, b = search.get("max_length_a", 0.0), search.get("max_length_b", 200)
    longest = model.config.max_positions - 1  # before `</s>`, for the decoder reads `</s>` first
    if not a:
        longest = min(longest, math.floor(b))
    return {
        **_SPECIAL_IDS,
        "num_beams": search.get("beam", 5),
        "length_penalty": search.get("length_penalty", 1.0),
        "early_stopping": True,
        "do_sample": False,
        "no_repeat_ngram_size": search.get("no_repeat_ngram", 0),
        "max_length": longest + 2,
        "max_length_a": a,
        "max_length_b": b,
        "min_target_length": search.get("min_length", 1),
    }


def _tokenizer(model: ExportModel, description: Description) -> dict[str, Any]:
    task, vocabulary = description.task, description.vocabulary
    return {
        "tokenizer_class": "DeltaLMTokenizer",
        "auto_map": {"AutoTokenizer": _AUTO_TOKENIZER},
        "num_ids": model.config.vocabulary_rows,
        "num_sentinels": vocabulary.num_sentinels,
        "first_sentinel_id": vocabulary.first_sentinel_id,
        "tags": {} if task is None else dict(task.tags),
        "model_max_length": model.config.max_positions if task is None else task.max_source_length,
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
