"""A small model and a ragged batch that several tests run."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, PackedTokens
from deltalm_ds.ops import IGNORE, CrossEntropy

SOURCE_LENGTHS = [9, 3, 14, 1, 6]
TARGET_LENGTHS = [4, 7, 1, 3, 5]
SAMPLE_IDS = [100, 2**32 + 1, 7, 8, 2**47]
STATE = DropoutState(seed=11, step=23)


def config(**changes: object) -> DeltaLMConfig:
    """Three encoder layers and two blocks of width 32 over 60 rows, with every kind of dropout."""
    settings: dict[str, object] = {
        "vocabulary_rows": 60,
        "width": 32,
        "feed_forward_width": 48,
        "num_heads": 4,
        "num_encoder_layers": 3,
        "num_decoder_blocks": 2,
        "max_positions": 20,
        "dropout": 0.1,
        "attention_dropout": 0.2,
        "activation_dropout": 0.3,
        "mask_id": 50,
        "first_sentinel_id": 51,
        "num_sentinels": 5,
    }
    return DeltaLMConfig(**{**settings, **changes})  # type: ignore[arg-type]


def model(**changes: object) -> DeltaLM:
    """The same random weights each time; biases and norms are drawn too, so that each of them matters."""
    torch.manual_seed(0)
    built = DeltaLM(config(**changes))
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return built


def batch(rows: list[int] | None = None) -> tuple[PackedTokens, PackedTokens, Tensor]:
    """Source, decoder input and labels of the samples `rows`, in that order."""
    generator = torch.Generator().manual_seed(1)
    source = [torch.randint(4, 60, (length,), generator=generator) for length in SOURCE_LENGTHS]
    target = [torch.randint(4, 60, (length + 1,), generator=generator) for length in TARGET_LENGTHS]
    target[1][3] = IGNORE
    rows = list(range(len(source))) if rows is None else rows
    ids = [SAMPLE_IDS[row] for row in rows]
    return (
        PackedTokens.from_sequences([source[row] for row in rows], ids),
        PackedTokens.from_sequences([target[row][:-1].clamp(min=0) for row in rows], ids),
        torch.cat([target[row][1:] for row in rows]),
    )


def run(built: DeltaLM, rows: list[int] | None = None, state: DropoutState | None = STATE) -> CrossEntropy:
    """One forward with label smoothing 0.1."""
    return built(*batch(rows), label_smoothing=0.1, dropout=state)


def gradients(built: DeltaLM, *parts: list[int] | None) -> dict[str, Tensor]:
    """Gradients of the summed loss, one backward for each part of the batch."""
    built.zero_grad()
    for rows in parts or (None,):
        run(built, rows).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in built.named_parameters()}
