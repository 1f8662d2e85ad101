"""An encoder of one's own as a folder: for transformers, and for a DeltaLM to start from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, XLMRobertaForMaskedLM

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.errors import UserError
from deltalm_ds.model import MaskedEncoder, PackedTokens
from deltalm_ds.model.masked_encoder import encoder_config
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.weights import load_pretrained, save_encoder
from deltalm_ds.weights.xlmr import encoder_origin


@pytest.fixture
def corpus(small_corpus: Path) -> Corpus:
    return Corpus.open(small_corpus)


@pytest.fixture
def encoder(corpus: Corpus) -> MaskedEncoder:
    torch.manual_seed(4)
    return MaskedEncoder(encoder_config("tiny", corpus.vocabulary.mask_id, num_heads=4))


@pytest.fixture
def folder(encoder: MaskedEncoder, corpus: Corpus, tmp_path: Path) -> Path:
    save_encoder(encoder.config, encoder.state_dict(), corpus.tokenizer_path, tmp_path / "encoder")
    return tmp_path / "encoder"


def test_transformers_loads_it_whole(encoder: MaskedEncoder, folder: Path) -> None:
    theirs, found = XLMRobertaForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = [[0, 9, 8, encoder.config.mask_id, 7, 2], [0, 300, 2]]
    logits = encoder.logits(PackedTokens.from_sequences(tokens), torch.arange(9))
    expected = torch.cat([theirs.eval()(torch.tensor([row])).logits[0] for row in tokens])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    config = theirs.config
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.0)


def test_its_tokenizer_gives_our_ids(corpus: Corpus, folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    for text in (
        "Elena zählt die Sterne.",
        "Leo buys a jar of honey at sunset.",
        "Магазин рано закрывается.",
    ):
        assert theirs(text)["input_ids"] == [0, *ours.encode(text), 2]
    assert theirs.mask_token_id == corpus.vocabulary.mask_id
    assert theirs.model_max_length == 512


def test_a_deltalm_starts_from_it(encoder: MaskedEncoder, corpus: Corpus, folder: Path) -> None:
    vocabulary = corpus.vocabulary
    loaded = load_pretrained(
        folder,
        vocabulary_rows=vocabulary.num_rows,
        mask_id=vocabulary.mask_id,
        first_sentinel_id=vocabulary.first_sentinel_id,
        num_sentinels=vocabulary.num_sentinels,
    )
    assert (loaded.config.num_heads, loaded.config.num_decoder_blocks) == (4, 2)
    weights = encoder.state_dict()
    table = loaded.state_dict["embedding.weight"]
    assert torch.equal(table[: vocabulary.mask_id + 1], weights["embedding.weight"])
    for name, tensor in loaded.state_dict.items():
        if name != "embedding.weight":
            assert torch.equal(tensor, weights[encoder_origin(name, "interleaved")])
    assert set(loaded.report.left_out) == {
        "roberta.embeddings.token_type_embeddings.weight",
        *(f"lm_head.{name}" for name in ("bias", "dense.weight", "dense.bias")),
        *(f"lm_head.layer_norm.{kind}" for kind in ("weight", "bias")),
    }


def test_saving_again_replaces_it(encoder: MaskedEncoder, corpus: Corpus, folder: Path) -> None:
    weights = {name: tensor + 1 for name, tensor in encoder.state_dict().items()}
    save_encoder(encoder.config, weights, corpus.tokenizer_path, folder)
    tensors = load_file(folder / "model.safetensors")
    assert torch.equal(tensors["lm_head.bias"], weights["head.output_bias"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "sentencepiece.bpe.model",
        "tokenizer_config.json",
    ]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "xlm-roberta"


def test_a_folder_that_cannot_be_written(encoder: MaskedEncoder, corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot save the encoder there .*; free some space or choose"):
        save_encoder(encoder.config, encoder.state_dict(), corpus.tokenizer_path, tmp_path / "file")
