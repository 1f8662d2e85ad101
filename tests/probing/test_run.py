"""Probing weights whose layout is known, because they were trained here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from released_layout import released_names
from torch import Tensor
from trim_samples import LINES, TOKENIZER, write_model

from deltalm_ds.data.objectives import SpanCorruption
from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig, PackedTokens
from deltalm_ds.probing.losses import text_windows
from deltalm_ds.probing.run import ProbeSettings, probe
from deltalm_ds.text.tokenizer import Tokenizer

FIRST, PLACES, NUM_SENTINELS, ROWS = 123, (121, 122, 123, 124), 12, 136
LENGTH, STEPS, BATCH = 40, 200, 12
OBJECTIVE = SpanCorruption(0.15, 3.0, form="group")
CONFIG = DeltaLMConfig(
    vocabulary_rows=ROWS,
    width=32,
    feed_forward_width=64,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_blocks=1,
    max_positions=LENGTH,
    mask_id=ROWS,
    first_sentinel_id=ROWS,
    num_sentinels=0,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "made.model"
    path.write_bytes(TOKENIZER)
    return path


@pytest.fixture(scope="module")
def trained(tokenizer: Path) -> dict[str, Tensor]:
    """A model that was trained with <mask_0> at FIRST, and that runs its first feed-forward layer first."""
    torch.manual_seed(0)
    model = DeltaLM(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("feed_forward.norm_weight"):
                parameter.uniform_(0.2, 1.8)  # a short training would leave all norms alike
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    windows = text_windows(Tokenizer(tokenizer), LINES, 1000, LENGTH)
    generator = np.random.default_rng(0)
    for step in range(STEPS):
        examples = [
            OBJECTIVE.corrupt(windows[choice], FIRST, (step, place))
            for place, choice in enumerate(generator.integers(0, len(windows), BATCH))
        ]
        source, decoder_input = (
            PackedTokens.from_sequences([part.tolist() for part in parts])
            for parts in list(zip(*examples, strict=True))[:2]
        )
        labels = torch.tensor(np.concatenate([example.labels for example in examples]), dtype=torch.int64)
        optimizer.zero_grad()
        (model(source, decoder_input, labels).loss / len(labels)).backward()
        optimizer.step()
    return model.state_dict()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    return tmp_path / "text.txt"


def released(path: Path, state: dict[str, Tensor], renamed: dict[str, str] | None = None) -> Path:
    """A file in the released layout; `renamed` exchanges parts of its names."""
    names = released_names(2, 1)
    weights = {}
    for ours, tensor in state.items():
        name = names[ours]
        for old, new in (renamed or {}).items():
            if old in name:
                name = name.replace(old, new)
                break
        weights[name] = tensor.clone()
    torch.save({"weights": weights}, path)
    return path


def probed(weights: Path, tokenizer: Path, text: Path, **options: object) -> dict:
    """The command's JSON, with the verdicts by question."""
    said: list[str] = []
    settings = {"sentinels": NUM_SENTINELS, "heads": 4, "samples": 60, **options}
    probe(
        ProbeSettings(weights=weights, tokenizer=tokenizer, text=(text,), json=True, **settings),  # type: ignore[arg-type]
        said.append,
    )
    content = json.loads("\n".join(said))
    return content | {"verdicts": {verdict["question"]: verdict for verdict in content["verdicts"]}}


def moved_sentinels(state: dict[str, Tensor], place: int) -> dict[str, Tensor]:
    """The same model with its sentinels elsewhere among the rows behind the pieces."""
    table = state["embedding.weight"].clone()
    table[PLACES[0] :] = torch.randn(ROWS - PLACES[0], 32, generator=torch.Generator().manual_seed(1)) * 0.2
    rows = state["embedding.weight"][FIRST : FIRST + NUM_SENTINELS]
    table[place : place + NUM_SENTINELS] = rows
    return {**state, "embedding.weight": table}


EXCHANGED = {"ffn_1.": "ffn_2.", "ffn_2.": "ffn_1."}
EXCHANGED_NORMS = {"decoder.layers.0.ffn_layer_norm": "decoder.layers.0.final_layer_norm"}
EXCHANGED_NORMS |= {new: old for old, new in EXCHANGED_NORMS.items()}


@pytest.mark.parametrize("place", PLACES)
def test_sentinels_are_found(
    place: int, trained: dict[str, Tensor], tokenizer: Path, text: Path, tmp_path: Path
) -> None:
    found = probed(released(tmp_path / "a.pt", moved_sentinels(trained, place)), tokenizer, text)
    assert {reading["first_sentinel_id"] for reading in found["readings"]} == set(PLACES)
    verdict = found["verdicts"]["first sentinel"]
    assert verdict["answer"] == str(place)
    assert verdict["is_decided"]


@pytest.mark.parametrize(
    ("renamed", "order"),
    [
        ({}, "as named"),
        (EXCHANGED | EXCHANGED_NORMS, "exchanged"),
        (EXCHANGED, "exchanged but for norms"),
    ],
)
def test_the_order_is_found(
    renamed: dict[str, str],
    order: str,
    trained: dict[str, Tensor],
    tokenizer: Path,
    text: Path,
    tmp_path: Path,
) -> None:
    found = probed(released(tmp_path / "a.pt", trained, renamed), tokenizer, text)
    verdict = found["verdicts"]["order of feed-forward layers"]
    assert verdict["answer"] == order
    assert verdict["is_decided"]
    assert verdict["interval"][0] <= verdict["margin"] <= verdict["interval"][1]


def test_an_untrained_model_decides_nothing(tokenizer: Path, text: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    found = probed(released(tmp_path / "a.pt", DeltaLM(CONFIG).state_dict()), tokenizer, text)
    assert not found["verdicts"]["order of feed-forward layers"]["is_decided"]
    assert found["windows"] == 60


def test_few_samples_decide_nothing(
    trained: dict[str, Tensor], tokenizer: Path, text: Path, tmp_path: Path
) -> None:
    found = probed(released(tmp_path / "a.pt", trained), tokenizer, text, samples=4)
    assert found["verdicts"]["first sentinel"]["answer"] == str(FIRST)
    assert not any(verdict["is_decided"] for verdict in found["verdicts"].values())


def test_a_model_folder_brings_tokenizer_and_sentinels(text: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = write_model(tmp_path / "model", is_tuned=False)
    probe(ProbeSettings(weights=folder, text=(text,), samples=6, window=20), said.append)
    assert said[0].startswith("6 windows of 20 tokens")
    lines = said[1].splitlines()
    assert lines[0].split() == [
        "form,",
        "feed-forward",
        "layers",
        "first",
        "sentinel",
        "loss",
        "of",
        "text",
        "alone",
    ]
    assert len(lines) == 1 + 2 * 3 * 6  # forms, orders, places of 10 sentinels in rows 121..135
    assert len(said) == 6
    assert said[3].startswith("first sentinel: ")


def test_what_cannot_be_probed(
    trained: dict[str, Tensor], tokenizer: Path, text: Path, tmp_path: Path
) -> None:
    weights = released(tmp_path / "a.pt", trained)

    def refused(message: str, **options: object) -> None:
        settings = {"weights": weights, "text": (text,), "tokenizer": tokenizer, "heads": 4, "sentinels": 12}
        with pytest.raises(UserError, match=message):
            probe(ProbeSettings(**{**settings, **options}), print)  # type: ignore[arg-type]

    refused("give its SentencePiece model with --tokenizer", tokenizer=None)
    refused("no room for 16 sentinels behind the tokenizer's 120 pieces", sentinels=16)
    refused("no room for 100 sentinels", sentinels=None)
    refused("give num_heads", heads=None)
    (tmp_path / "short.txt").write_text("bane loki\n")
    refused(r"less than one window of 44 tokens", text=(tmp_path / "short.txt",))
    small = {**trained, "embedding.weight": trained["embedding.weight"][:104]}
    refused(
        "the tokenizer has 120 pieces and the weights 104 rows", weights=released(tmp_path / "b.pt", small)
    )


def test_impossible_settings() -> None:
    for name, value in (("heads", 0), ("sentinels", 0), ("samples", 0), ("window", 7), ("seed", -1)):
        with pytest.raises(UserError, match=f"--{name} must"):
            ProbeSettings(weights=Path("a"), text=(Path("b"),), **{name: value})
