"""Small random checkpoints, written in the layouts under test without the libraries that define them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from deltalm_ds.model import DeltaLM, DeltaLMConfig

ROWS, WIDTH, INNER, POSITIONS, LAYERS = 60, 32, 64, 34, 4

RELEASED = Path(__file__).parent.parent / "model" / "data" / "parity" / "released.pt"

HUGGING_FACE_CONFIG = {
    "model_type": "xlm-roberta",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "pad_token_id": 1,
}


@pytest.fixture
def config() -> DeltaLMConfig:
    return DeltaLMConfig(
        vocabulary_rows=72,
        width=WIDTH,
        feed_forward_width=INNER,
        num_heads=4,
        num_encoder_layers=2,
        num_decoder_blocks=1,
        max_positions=16,
        mask_id=60,
        first_sentinel_id=61,
        num_sentinels=10,
    )


@pytest.fixture
def model(config: DeltaLMConfig) -> DeltaLM:
    torch.manual_seed(3)
    model = DeltaLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


@pytest.fixture
def hugging_face_tensors() -> dict[str, Tensor]:
    """A random XLM-R under transformers' names."""
    shapes: dict[str, tuple[int, ...]] = {
        "roberta.embeddings.word_embeddings.weight": (ROWS, WIDTH),
        "roberta.embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "roberta.embeddings.LayerNorm.weight": (WIDTH,),
        "roberta.embeddings.LayerNorm.bias": (WIDTH,),
        "lm_head.bias": (ROWS,),
    }
    for layer in range(LAYERS):
        for module, outputs, inputs in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ):
            shapes[f"roberta.encoder.layer.{layer}.{module}.weight"] = (outputs, inputs)
            shapes[f"roberta.encoder.layer.{layer}.{module}.bias"] = (outputs,)
        for module in ("attention.output", "output"):
            for kind in ("weight", "bias"):
                shapes[f"roberta.encoder.layer.{layer}.{module}.LayerNorm.{kind}"] = (WIDTH,)
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def write_hugging_face(tmp_path: Path) -> Callable[..., Path]:
    """(tensors, **changes of config.json) → the folder; a change to None takes the key away."""

    def write(tensors: dict[str, Tensor], **changes: Any) -> Path:
        config = {k: v for k, v in (HUGGING_FACE_CONFIG | changes).items() if v is not None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path

    return write


@pytest.fixture
def released() -> dict[str, Tensor]:
    """The tensors of the released-layout file that the parity tests use."""
    return torch.load(RELEASED, weights_only=True)["weights"]


@pytest.fixture
def released_path() -> Path:
    return RELEASED


@pytest.fixture
def fairseq_deltalm(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same model under the names of a file fine-tuned with fairseq."""
    replacements = [
        ("src_embedding.emb_layer_norm", "encoder.layernorm_embedding"),
        ("tgt_embedding.emb_layer_norm", "decoder.layernorm_embedding"),
        ("src_embedding.", "encoder."),
        ("tgt_embedding.", "decoder."),
        (".ffn_1.fc1", ".fc3"),
        (".ffn_1.fc2", ".fc4"),
        (".ffn_2.", "."),
        (".ffn.", "."),
    ]
    tensors = {}
    for name, tensor in released.items():
        for old, new in replacements:
            name = name.replace(old, new)
        tensors[name] = tensor
    tensors["decoder.output_projection.weight"] = tensors["encoder.embed_tokens.weight"]
    tensors["encoder.version"] = torch.tensor([3.0])
    tensors["decoder.embed_positions._float_tensor"] = torch.zeros(1)
    return tensors
