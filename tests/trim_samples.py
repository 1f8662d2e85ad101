"""A model folder with a tokenizer, tags and a task, small enough to generate with."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.text.tokenizer import train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights import Description, TaskDescription, save_own

_GENERATOR = random.Random(5)
_SYLLABLES = ["ba", "ne", "lo", "ki", "tu", "ré", "so", "mi", "dar", "vel"]
WORDS = ["".join(_GENERATOR.choices(_SYLLABLES, k=_GENERATOR.randint(1, 4))) for _ in range(200)]
LINES = [" ".join(_GENERATOR.choices(WORDS, k=6)) for _ in range(400)]
TOKENIZER = train_tokenizer(LINES, 120, 1.0)


def write_model(folder: Path, is_tuned: bool = True) -> Path:
    """A random model in `folder`, tuned for two languages or only pre-trained; its folder."""
    vocabulary = Vocabulary(120, num_sentinels=10, num_tags=2 if is_tuned else 0)
    config = DeltaLMConfig(
        vocabulary_rows=vocabulary.num_rows,
        width=32,
        feed_forward_width=48,
        num_heads=4,
        num_encoder_layers=2,
        num_decoder_blocks=1,
        max_positions=40,
        mask_id=vocabulary.mask_id,
        first_sentinel_id=vocabulary.first_sentinel_id,
        num_sentinels=vocabulary.num_sentinels,
    )
    torch.manual_seed(0)
    model = DeltaLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    task = TaskDescription(
        name="translation",
        directions=(("en", "fr"), ("en", "de")),
        tags={"fr": vocabulary.first_tag_id + 1, "de": vocabulary.first_tag_id},
        max_source_length=30,
        max_target_length=20,
        search={"beam": 3, "max_length_b": 12},
        metric="bleu",
    )
    tokenizer = folder.parent / "made.model"
    tokenizer.write_bytes(TOKENIZER)
    description = Description(
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        languages=("en", "fr", "de"),
        task=task if is_tuned else None,
        training={"steps": 7},
    )
    save_own(model, folder, description)
    return folder
