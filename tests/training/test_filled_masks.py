import numpy as np
import torch

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.masked import MaskedExample
from deltalm_ds.data.samples import Sample
from deltalm_ds.model import MaskedEncoder
from deltalm_ds.model.masked_encoder import encoder_config
from deltalm_ds.text.tokenizer import Tokenizer
from deltalm_ds.training.filled_masks import fill_masks


class Oracle(MaskedEncoder):
    """A model that answers every place with its token in the text that it has been told."""

    def logits(self, source, places):
        return torch.nn.functional.one_hot(self.text[places], self.config.vocabulary_rows).float()


def masked(tokenizer, words, places, number):
    text = np.array([0, *tokenizer.encode(words), 2], dtype=np.int32)
    source = text.copy()
    source[places] = tokenizer.vocabulary.mask_id
    source[places[-1]] = text[places[-1]]  # one that stayed as it was
    example = MaskedExample(source, np.array(places, dtype=np.int32), text[places])
    return text, Sample(number, 0, 0, 0, "mlm", "de", example)


def test_every_place_is_shown_with_what_the_model_puts_there(small_corpus):
    corpus = Corpus.open(small_corpus)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    first, one = masked(tokenizer, "Elena zählt die Sterne.", [2, 3, 5], 0)
    second, two = masked(tokenizer, "Leo kauft ein Glas Honig.", [1], 1)
    model = Oracle(encoder_config("tiny", corpus.vocabulary.mask_id))
    model.text = torch.from_numpy(np.concatenate([first, second])).long()
    model.text[3] = tokenizer.encode("Honig")[0]
    lines = fill_masks(model, [one, two], tokenizer, torch.device("cpu")).split("\n")

    decode = tokenizer.decode
    answer = decode([first[2], model.text[3]])
    assert lines == [
        f"[mlm, de] {decode(first[:2])} [{decode(first[2:4])} → {answer}] {decode(first[4:5])} "
        f"[{decode(first[5:6])} → {decode(first[5:6])}] {decode(first[6:])}",
        f"[mlm, de] [{decode(second[1:2])} → {decode(second[1:2])}] {decode(second[2:])}",
    ]
    assert decode(first[2:4]) != answer
