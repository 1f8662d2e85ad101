"""A tiny model folder with random weights that have clear favourites, and text that its tokenizer knows."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.text.tokenizer import train_tokenizer
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.weights import Description, TaskDescription, save_own

NUM_PIECES = 60
LANGUAGES = ("fr", "ru")


def made_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of one to twelve made-up words."""
    generator = random.Random(seed)
    syllables = ["no", "sa", "te", "ki", "lu", "mo", "ba", "ne", "ta", "do"]
    return [
        " ".join("".join(generator.choices(syllables, k=2)) for _ in range(generator.randint(1, 12)))
        for _ in range(count)
    ]


def write_model_folder(
    folder: Path,
    *,
    languages: Sequence[str] = LANGUAGES,
    with_tags: bool = True,
    search: Mapping[str, Any] | None = None,
) -> Path:
    """A model with tags for `languages`."""
    folder.mkdir(parents=True)
    tokenizer = folder / "made.model"
    tokenizer.write_bytes(train_tokenizer(made_lines(400), NUM_PIECES, 1.0))
    vocabulary = Vocabulary(NUM_PIECES, num_sentinels=5, num_tags=len(languages) * with_tags)
    torch.manual_seed(8)
    config = DeltaLMConfig(
        vocabulary_rows=vocabulary.num_rows,
        width=32,
        feed_forward_width=64,
        num_heads=2,
        num_encoder_layers=2,
        num_decoder_blocks=1,
        max_positions=96,
        mask_id=vocabulary.mask_id,
        first_sentinel_id=vocabulary.first_sentinel_id,
        num_sentinels=5,
    )
    model = DeltaLM(config)
    with torch.no_grad():
        model.embedding.weight.mul_(3)
        table = model.embedding.weight
        table[Vocabulary.EOS] = 0.9 * table[56] + 0.3 * table[57]  # so that lengths differ
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embedding" not in name:
                parameter.normal_(std=0.3)
    tags = {language: vocabulary.first_tag_id + number for number, language in enumerate(languages)}
    task = TaskDescription(
        name="translation",
        directions=tuple(("en", language) for language in languages),
        tags=tags if with_tags else {},
        max_source_length=64,
        max_target_length=64,
        search=search if search is not None else {"beam": 2, "max_length_b": 12},
        metric="bleu",
    )
    description = Description(
        tokenizer=tokenizer, vocabulary=vocabulary, languages=("en", *languages), task=task
    )
    save_own(model, folder, description)
    return folder
