import numpy as np
import pytest
import torch

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.objectives import SpanCorruption
from deltalm_ds.data.samples import Sample, ValidationReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.data.translation import translation
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.training.reconstruction import reconstruct


class Oracle(DeltaLM):
    """A model that would give the true next token after every prefix it has been told."""

    def tell(self, example):
        target = [*example.decoder_input.tolist(), int(example.labels[-1])]
        self.next_token = {tuple(target[:length]): target[length] for length in range(1, len(target))}

    def decode(self, decoder_input, encoder_output, source):
        self._check_lengths(decoder_input)
        parts = decoder_input.tokens.split(decoder_input.lengths.tolist())
        answers = [self.next_token.get(tuple(part.tolist()), 3) for part in parts]
        hidden = torch.zeros(len(decoder_input.tokens), 1)
        hidden[decoder_input.cumulative_lengths[1:].long() - 1, 0] = torch.tensor(
            answers, dtype=torch.float32
        )
        return hidden

    def logits(self, hidden):
        return torch.nn.functional.one_hot(hidden[:, 0].long(), self.config.vocabulary_rows).float()


def made_oracle(vocabulary, **sizes):
    return Oracle(
        DeltaLMConfig.preset(
            "tiny",
            width=8,
            feed_forward_width=8,
            vocabulary_rows=vocabulary.num_rows,
            mask_id=vocabulary.mask_id,
            first_sentinel_id=vocabulary.first_sentinel_id,
            **sizes,
        )
    )


def check(text):
    """Every span as it was; how many there are."""
    spans = [part.split("]")[0] for part in text.split("[") if " → " in part]
    for span in spans:
        truth, filled = span.split(" → ")
        assert truth == filled
    assert "mask" not in text
    return len(spans)


def test_the_true_spans_stand_where_a_perfect_model_puts_them(small_corpus):
    corpus = Corpus.open(small_corpus)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    reader = ValidationReader(corpus, DataSettings(max_source_length=48, max_target_length=48), 2)
    model = made_oracle(corpus.vocabulary)
    for number in range(3):
        model.tell(reader.sample(number).example)
        text = reconstruct(model, [reader.sample(number)], tokenizer, torch.device("cpu"))
        assert check(text) >= 2


@pytest.mark.parametrize("form", ["group", "t5"])
def test_a_target_as_long_as_the_model_has_positions(small_corpus, form):
    corpus = Corpus.open(small_corpus)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    objective = SpanCorruption(0.6, 3.0, form)
    for number in range(3):  # the last span is not always the longest
        tokens = np.arange(100, 150, dtype=np.int32)
        example = objective.corrupt(tokens, corpus.vocabulary.first_sentinel_id, (1, number))
        assert len(example.source) < len(example.decoder_input)
        model = made_oracle(corpus.vocabulary, max_positions=len(example.decoder_input))
        model.tell(example)
        sample = Sample(number, 0, 0, 0, "span_corruption", "de", example)
        assert check(reconstruct(model, [sample], tokenizer, torch.device("cpu"))) >= 2


def test_a_translation_stands_behind_its_source(small_corpus):
    corpus = Corpus.open(small_corpus)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    settings = DataSettings(max_source_length=48, max_target_length=48, pair_objective="translation")
    samples = [s for s in ValidationReader(corpus, settings, 2).samples() if s.objective == "translation"]
    assert len(samples) == 2
    for sample in samples:
        model = made_oracle(corpus.vocabulary)
        model.tell(sample.example)
        text = reconstruct(model, [sample], tokenizer, torch.device("cpu"))
        source, target = (tokenizer.decode(part) for part in (sample.example.source, sample.example.labels))
        assert text == f"[translation, {sample.language}] {source} [{target} → {target}]"


def test_what_comes_after_a_translations_end_is_not_shown(small_corpus):
    corpus = Corpus.open(small_corpus)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    target = tokenizer.encode("Leo buys honey")
    example = translation(np.array([0, *tokenizer.encode("Leo"), 2, *target, 2], dtype=np.int32), (0, 0))
    model = made_oracle(corpus.vocabulary)
    model.tell(example)
    model.next_token[2, target[0]] = 2  # the model ends early
    model.next_token[2, target[0], 2] = target[1]
    sample = Sample(0, 0, 0, 0, "translation", "de-en", example)
    text = reconstruct(model, [sample], tokenizer, torch.device("cpu"))
    assert text.endswith(f"Leo [Leo buys honey → {tokenizer.decode(target[:1])}]")
