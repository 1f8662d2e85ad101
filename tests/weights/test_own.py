"""Our own model folders."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deltalm_ds.errors import UserError
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.weights import load_pretrained, parameter_shapes, save_own


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Makes writing past `num_bytes` of a file fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def edit_config(folder: Path, change: Callable[[dict], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("preset", ["tiny", "base", "large"])
@pytest.mark.parametrize("pre_layer_norm", [False, True])
def test_parameter_shapes_are_the_models(preset: str, pre_layer_norm: bool) -> None:
    config = DeltaLMConfig.preset(preset, pre_layer_norm=pre_layer_norm)
    with torch.device("meta"):
        model = DeltaLM(config)
    found = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    assert found == parameter_shapes(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_models_are_equal(model: DeltaLM, dtype: torch.dtype, tmp_path: Path) -> None:
    model.to(dtype)
    model.save_pretrained(tmp_path / "new" / "folder")
    again = DeltaLM.from_pretrained(tmp_path / "new" / "folder")
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.float()), name
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_the_tied_table_is_stored_once(model: DeltaLM, tmp_path: Path) -> None:
    save_own(model, tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
    assert [name for name in names if name.startswith("embedding")] == ["embedding.weight"]
    num_values = sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * num_values + 20_000


def test_released_to_own_and_back(released_path: Path, tmp_path: Path) -> None:
    released = load_pretrained(released_path, num_heads=4)
    model = DeltaLM(released.config)
    model.load_state_dict(released.state_dict)
    save_own(model, tmp_path)
    own = load_pretrained(tmp_path)
    assert own.config == released.config
    assert own.state_dict.keys() == released.state_dict.keys()
    for name, tensor in released.state_dict.items():
        assert torch.equal(own.state_dict[name], tensor), name
    assert "deltalm-ds model" in str(own.report)


def test_dropout_may_change_and_nothing_else(model: DeltaLM, tmp_path: Path) -> None:
    save_own(model, tmp_path)
    assert load_pretrained(tmp_path, dropout=0.3).config.dropout == 0.3
    edit_config(tmp_path, lambda content: content["model"].update(dropout=0.2))
    assert load_pretrained(tmp_path).config.dropout == 0.2
    with pytest.raises(UserError, match="num_heads 4, but 2 was asked for"):
        load_pretrained(tmp_path, num_heads=2)
    with pytest.raises(UserError, match="first_sentinel_id 61, but 62 was asked for"):
        load_pretrained(tmp_path, first_sentinel_id=62)
    edit_config(tmp_path, lambda content: content["model"].update(num_heads=2))
    with pytest.raises(UserError, match=r"config\.json says num_heads 2, \S+ was saved with 4"):
        load_pretrained(tmp_path)


def test_a_full_disk_leaves_the_older_model(model: DeltaLM, tmp_path: Path) -> None:
    save_own(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        model.embedding.weight.add_(1)
    with file_size_limit(10_000), pytest.raises(UserError, match=r"cannot save the model there.*free some"):
        save_own(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_path_that_can_hold_no_folder(model: DeltaLM, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot save the model there"):
        save_own(model, tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(version=2), r"version 2 of the format.*reads version 1"),
        (lambda content: content.pop("model"), r"lacks the model's configuration"),
        (lambda content: content["model"].update(colour=1), r"unknown or missing colour"),
        (lambda content: content["model"].update(width="64"), r"width must be of type int"),
        (lambda content: content.update(format="other"), r"holds a model of type unknown"),
    ],
)
def test_a_config_that_cannot_be_used(
    change: Callable[[dict], object], message: str, model: DeltaLM, tmp_path: Path
) -> None:
    save_own(model, tmp_path)
    edit_config(tmp_path, change)
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_encoder_layers": 10**9}, r"can't fill 1000000000 encoder layers and 1 decoder blocks"),
        ({"num_decoder_blocks": 10**9}, r"can't fill 2 encoder layers and 1000000000 decoder blocks"),
        ({"num_encoder_layers": 3}, r"lacks encoder\.layers\.2\."),
        (
            {"vocabulary_rows": 10**9},
            r"embedding\.weight has shape \[72, 32\], but embedding\.weight needs \[1000000000, 32\]",
        ),
        # Tables that end with the tokenizer's pieces or <mask> may grow in other layouts.
        (
            {"vocabulary_rows": 10**9, "mask_id": 72, "first_sentinel_id": 73},
            r"embedding\.weight has shape \[72, 32\], but",
        ),
        ({"width": 4 * 10**8}, r"has shape \[72, 32\], but embedding\.weight needs \[72, 400000000\]"),
        ({"feed_forward_width": 10**9}, r"fc1_weight has shape \[64, 32\], but .* needs \[1000000000, 32\]"),
        ({"max_positions": 10**9}, r"encoder\.positions\.weight has shape \[18, 32\], but"),
    ],
)
def test_sizes_beyond_the_tensors_take_no_memory(
    sizes: dict[str, int], message: str, model: DeltaLM, tmp_path: Path
) -> None:
    """Both files agree on the sizes, as in a folder that somebody made up."""
    save_own(model, tmp_path)
    edit_config(tmp_path, lambda content: content["model"].update(sizes))
    configuration = json.dumps(json.loads((tmp_path / "config.json").read_text())["model"])
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"config": configuration})
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 100_000  # KiB


@pytest.mark.parametrize("shape", [(), (72,), (72, 32, 1)])
def test_a_token_table_without_rows_and_columns(
    shape: tuple[int, ...], model: DeltaLM, tmp_path: Path
) -> None:
    save_own(model, tmp_path)
    configuration = json.dumps(model.config.to_dict())
    tensors = {**load_file(tmp_path / "model.safetensors"), "embedding.weight": torch.zeros(shape)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"config": configuration})
    with pytest.raises(UserError, match=r"embedding\.weight has shape .*, but embedding\.weight needs"):
        load_pretrained(tmp_path)


def test_damaged_folders(model: DeltaLM, tmp_path: Path) -> None:
    save_own(model, tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=rf"give the folder, {tmp_path}"):
        load_pretrained(weights)
    content = weights.read_bytes()
    weights.write_bytes(content[:-7])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        load_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        load_pretrained(tmp_path)
    config.write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        load_pretrained(tmp_path)
    config.write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: not a JSON object"):
        load_pretrained(tmp_path)
    config.unlink()
    with pytest.raises(UserError, match=r"a folder without config\.json; give a model folder"):
        load_pretrained(tmp_path)
    with pytest.raises(UserError, match="no such file or folder; give a model folder"):
        load_pretrained(tmp_path / "none")


def test_weights_that_were_not_saved_by_us(model: DeltaLM, tmp_path: Path) -> None:
    save_own(model, tmp_path)
    save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="does not carry a configuration of deltalm-ds"):
        load_pretrained(tmp_path)
