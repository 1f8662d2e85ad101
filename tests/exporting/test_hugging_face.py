"""Folders that transformers loads with our code in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_samples import PARITY, described, released_model, same_weights, sample_model

from deltalm_ds.decoding.search import Generator
from deltalm_ds.decoding.settings import SearchSettings
from deltalm_ds.downstream.encoding import TextEncoder
from deltalm_ds.exporting.hugging_face import write_hugging_face
from deltalm_ds.exporting.model import ExportModel, read_model, with_tokenizer
from deltalm_ds.exporting.token_names import token_names
from deltalm_ds.weights import TaskDescription
from deltalm_ds.weights.safe import load_safetensors

PAD = 1
LIMITS = {"max_length_a": 1.2, "max_length_b": 10}
TASK = TaskDescription(
    name="translation",
    directions=(("en", "fr"), ("en", "zh-Hant")),
    tags={"fr": 58, "zh-Hant": 59},
    max_source_length=12,
    max_target_length=12,
    search={"beam": 3, "length_penalty": 0.5, **LIMITS},
    metric="bleu",
)


@pytest.fixture(autouse=True, scope="module")
def _own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """transformers copies a folder's code to a cache of its own before importing it."""
    dynamic_module_utils = pytest.importorskip("transformers.dynamic_module_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


def exported(model: ExportModel, folder: Path, task: TaskDescription | None = None) -> Path:
    target = folder / f"export_{len(list(folder.iterdir()))}"
    write_hugging_face(described(model, folder, task), target)
    return target


def load(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True, **options).eval()


def tokenizer_of(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=True, **options)


def padded_batch(rows: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sides = []
    for lengths in ([9, 3, 14], [4, 7, 1]):
        side = torch.full((3, max(lengths)), PAD)
        for row, length in enumerate(lengths):
            tokens = torch.randint(4, rows, (length,), generator=generator)
            side[row, -length:] = tokens if left else side[row, -length:]
            if not left:
                side[row, :length] = tokens
        sides.append(side)
    return sides[0], sides[1]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    "changes", [{}, {"pre_layer_norm": True, "layer_norm_epsilon": 1e-3}, {"decoder": "standard"}]
)
def test_the_same_logits(changes: dict[str, Any], left: bool, tmp_path: Path) -> None:
    model = sample_model(num_sentinels=0, first_sentinel_id=60, mask_id=25, **changes)
    loaded = load(exported(model, tmp_path))
    source, target = padded_batch(60, left)
    with torch.no_grad():
        expected = model.build().forward_padded(source, target)
        found = loaded(input_ids=source, decoder_input_ids=target).logits
    real = target != PAD
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-5)


def test_published_logits_and_the_loss(tmp_path: Path) -> None:
    loaded = load(exported(released_model(), tmp_path))
    with np.load(PARITY / "forward.npz") as file:
        numbers = {name: torch.from_numpy(file[name]) for name in file.files}
    labels = numbers["target"].masked_fill(numbers["target"] == PAD, -100)
    output = loaded(input_ids=numbers["src_tokens"], labels=labels)
    real = numbers["target"] != PAD
    torch.testing.assert_close(output.logits[real], numbers["logits"][real], rtol=0, atol=2e-5)
    torch.testing.assert_close(output.loss * real.sum(), numbers["nll_sum"].float(), rtol=1e-5, atol=0)
    output.loss.backward()
    assert loaded.decoder.layers[1].fc3.weight.grad.norm() > 0


def test_the_published_search(tmp_path: Path) -> None:
    loaded = load(exported(released_model(), tmp_path))
    golden = json.loads((PARITY / "search.json").read_text())["search"]
    with np.load(PARITY / "forward.npz") as file:
        sources = torch.from_numpy(file["src_tokens"])
    for setting, expected in golden.items():
        # no_repeat_ngram is left out: where it is 3 the file's hypotheses repeat three tokens all the same.
        named = dict(part.split("=") for part in setting.split(","))
        found = loaded.generate(
            sources,
            num_beams=int(named["beam"]),
            length_penalty=float(named["lenpen"]),
            max_length_a=float(named["max_len_a"]),
            max_length_b=int(named["max_len_b"]),
        )
        for row, hypotheses in zip(found.tolist(), expected, strict=True):
            assert [token for token in row[1:] if token != PAD] == hypotheses[0]["tokens"], setting


@pytest.mark.parametrize("decoder", ["interleaved", "standard"])
def test_the_same_best_hypothesis_as_our_search(decoder: str, tmp_path: Path) -> None:
    model = sample_model(num_sentinels=0, mask_id=25, decoder=decoder, max_positions=40)
    folder = exported(model, tmp_path, TASK)
    generator = torch.Generator().manual_seed(2)
    sources = [
        [*torch.randint(4, 60, (length,), generator=generator).tolist(), 2] for length in [1, 3, 5, 8, 13] * 4
    ]
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(source) for source in sources], batch_first=True, padding_value=PAD
    )
    settings = SearchSettings(**TASK.search)
    ours = [found[0].tokens for found in Generator(model.build(), settings).generate(sources)]
    theirs = load(folder).generate(padded).tolist()
    assert len({len(tokens) for tokens in ours}) > 3
    assert [[token for token in row[1:] if token != PAD] for row in theirs] == [list(found) for found in ours]


def test_the_cache_changes_nothing(tmp_path: Path) -> None:
    loaded = load(exported(sample_model(num_sentinels=0, mask_id=25), tmp_path, TASK))
    source, _ = padded_batch(60, left=False)
    assert torch.equal(loaded.generate(source), loaded.generate(source, use_cache=False))
    left, _ = padded_batch(60, left=True)
    assert torch.equal(loaded.generate(left), loaded.generate(source))


def test_lengths_of_targets(tmp_path: Path) -> None:
    loaded = load(exported(sample_model(num_sentinels=0, mask_id=25), tmp_path, TASK))
    assert loaded.generation_config.num_beams == 3
    assert loaded.generation_config.length_penalty == 0.5
    source, _ = padded_batch(60, left=False)
    for options, most in (
        ({}, [20, 14, 20]),
        ({"max_new_tokens": 5}, [5, 5, 5]),
        ({"max_length_b": 2}, [13, 6, 19]),
    ):
        for row, limit in zip(loaded.generate(source, num_beams=1, **options).tolist(), most, strict=True):
            target = [token for token in row[1:] if token != PAD]
            assert target[-1] == 2
            assert 2 <= len(target) <= limit


def test_gradients_with_less_memory(tmp_path: Path) -> None:
    loaded = load(exported(sample_model(num_sentinels=0, mask_id=25), tmp_path)).train()
    for module in loaded.modules():
        module.dropout = module.activation_dropout = 0.0
    source, target = padded_batch(60, left=False)
    gradients = []
    for _ in range(2):
        loaded.zero_grad()
        loaded(input_ids=source, labels=target).loss.backward()
        gradients.append(loaded.encoder.embed_tokens.weight.grad.clone())
        loaded.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("decoder", ["interleaved", "standard"])
def test_saving_again(decoder: str, tmp_path: Path) -> None:
    model = sample_model(num_sentinels=0, mask_id=25, decoder=decoder)
    folder = exported(model, tmp_path, TASK)
    tensors, _ = load_safetensors(folder / "model.safetensors")
    assert len(tensors) == len(model.weights)
    load(folder).save_pretrained(tmp_path / "again")
    tokenizer_of(folder).save_pretrained(tmp_path / "again")
    assert load_safetensors(tmp_path / "again" / "model.safetensors")[0].keys() == tensors.keys()
    again = read_model(tmp_path / "again")
    assert again.config == model.config
    same_weights(again, model)
    source, target = padded_batch(60, left=False)
    one, other = load(folder), load(tmp_path / "again")
    assert torch.equal(
        one(input_ids=source, decoder_input_ids=target).logits,
        other(input_ids=source, decoder_input_ids=target).logits,
    )
    assert torch.equal(one.generate(source), other.generate(source))
    assert (
        tokenizer_of(tmp_path / "again", tgt_lang="fr")("nosa").input_ids
        == tokenizer_of(folder, tgt_lang="fr")("nosa").input_ids
    )


def test_sixteen_bits(tmp_path: Path) -> None:
    from deltalm_ds.exporting.model import cast

    loaded = load(exported(cast(sample_model(num_sentinels=0, mask_id=25), "bf16"), tmp_path), dtype="auto")
    assert loaded.dtype == torch.bfloat16


TEXTS = ["nosa teki lumo", "  fumi </s> gari teba", "q <s> <mask> lode", "nosa " * 30, ""]


def test_the_same_tokens_as_ours(tmp_path: Path) -> None:
    folder = exported(sample_model(num_sentinels=5, mask_id=25, first_sentinel_id=26), tmp_path, TASK)
    with_tags = tokenizer_of(folder, tgt_lang="zh-Hant")
    description = with_tokenizer(
        sample_model(num_sentinels=5, mask_id=25, first_sentinel_id=26), tmp_path / "any.model"
    ).described()
    ours = description.open_tokenizer()
    encoder = TextEncoder(ours, TASK.tags, max_source_length=12, max_target_length=10)
    sources, _ = encoder.sources(TEXTS, ["zh-Hant"] * len(TEXTS))
    assert with_tags(TEXTS, truncation=True).input_ids == [source.tolist() for source in sources]
    targets, _ = encoder.targets(TEXTS)
    assert with_tags(text_target=TEXTS, truncation=True, max_length=10).input_ids == [
        t.tolist() for t in targets
    ]
    for ids in [*sources, *targets]:
        assert with_tags.decode(ids.tolist(), skip_special_tokens=True) == ours.decode(ids)
    assert with_tags.decode([26, 30, 4]).startswith("<mask_0> <mask_4>")
    assert len(with_tags) == 60
    names = token_names(
        described(
            sample_model(num_sentinels=5, mask_id=25, first_sentinel_id=26), tmp_path, TASK
        ).described(),
        60,
    )
    assert with_tags.convert_ids_to_tokens(list(range(60))) == names
    assert with_tags.convert_tokens_to_ids(names) == list(range(60))
    padded = with_tags(TEXTS[:2], return_tensors="pt", padding=True)
    assert padded.input_ids.shape == padded.attention_mask.shape
    assert (padded.input_ids == PAD).equal(padded.attention_mask == 0)


def test_the_language_to_write(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(exported(sample_model(num_sentinels=0, mask_id=25), tmp_path, TASK))
    with pytest.raises(ValueError, match=r"say which language to write.*fr, zh-Hant"):
        tokenizer("nosa")
    tokenizer.tgt_lang = "fr"
    assert tokenizer("nosa").input_ids[:2] == [0, 58]
    with pytest.raises(ValueError, match="does not write 'de': it knows fr, zh-Hant"):
        tokenizer.tgt_lang = "de"
    tokenizer.save_pretrained(tmp_path / "tokenizer")


OFFLINE = """
import sys
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
try:
    import deltalm_ds
except ImportError:
    pass
else:
    sys.exit("deltalm_ds is there")
folder = sys.argv[1]
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True, tgt_lang="fr")
inputs = tokenizer(["nosa teki", "lumo"], return_tensors="pt", padding=True)
print(model.generate(**inputs).tolist())
"""


def test_offline_and_without_this_package(tmp_path: Path) -> None:
    folder = exported(sample_model(num_sentinels=0, mask_id=25), tmp_path, TASK)
    site = tmp_path / "site"
    site.mkdir()
    # An installed deltalm_ds is hidden, whichever way it is installed.
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['deltalm_ds'] = None\n")
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(site),
        "HF_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(folder)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    inputs = tokenizer_of(folder, tgt_lang="fr")(["nosa teki", "lumo"], return_tensors="pt", padding=True)
    assert json.loads(done.stdout) == load(folder).generate(**inputs).tolist()
