import torch

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.samples import DataSettings, ValidationReader
from deltalm_ds.model import DeltaLM, DeltaLMConfig
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.training.reconstruction import reconstruct


class Oracle(DeltaLM):
    """A model that would give the true next token after every prefix it has been told."""

    def tell(self, target):
        self.next_token = {tuple(target[:length]): target[length] for length in range(1, len(target))}

    def decode(self, decoder_input, encoder_output, source):
        parts = decoder_input.tokens.split(decoder_input.lengths.tolist())
        answers = [self.next_token.get(tuple(part.tolist()), 3) for part in parts]
        hidden = torch.zeros(len(decoder_input.tokens), 1)
        hidden[decoder_input.cumulative_lengths[1:].long() - 1, 0] = torch.tensor(
            answers, dtype=torch.float32
        )
        return hidden

    def logits(self, hidden):
        return torch.nn.functional.one_hot(hidden[:, 0].long(), self.config.vocabulary_rows).float()


def test_the_true_spans_stand_where_a_perfect_model_puts_them(small_corpus):
    corpus = Corpus.open(small_corpus)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    reader = ValidationReader(corpus, DataSettings(max_source_length=48, max_target_length=48), 2)
    model = Oracle(
        DeltaLMConfig.preset(
            "tiny",
            width=8,
            feed_forward_width=8,
            vocabulary_rows=corpus.vocabulary.num_rows,
            mask_id=corpus.vocabulary.mask_id,
            first_sentinel_id=corpus.vocabulary.first_sentinel_id,
        )
    )
    for number in range(3):
        example = reader.sample(number).example
        model.tell([*example.decoder_input.tolist(), int(example.labels[-1])])
        text = reconstruct(model, [reader.sample(number)], tokenizer, torch.device("cpu"))
        spans = [part.split("]")[0] for part in text.split("[") if " → " in part]
        assert len(spans) >= 2
        for span in spans:
            truth, filled = span.split(" → ")
            assert truth == filled
        assert "mask" not in text
