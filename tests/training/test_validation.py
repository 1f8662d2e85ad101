"""The numbers of a validation, with an engine whose losses are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deltalm_ds.data.masked import MaskedExample
from deltalm_ds.data.objectives import Example
from deltalm_ds.data.samples import GroupName, Sample
from deltalm_ds.ops import CrossEntropy
from deltalm_ds.text.vocabulary import Vocabulary
from deltalm_ds.training import validation
from deltalm_ds.training.distributed import Process

VOCABULARY = Vocabulary(num_pieces=50, num_sentinels=4)
GROUPS = [GroupName("span_corruption", "de"), GroupName("span_corruption", "fr"), GroupName("pairs", "de-fr")]
SENTINEL = VOCABULARY.first_sentinel_id


class Tokenizer:
    vocabulary = VOCABULARY


class Engine:
    """Every token's loss is the first token of its sample's source; a sentinel costs 1,000 more."""

    def forward(self, batch, dropout):
        assert dropout is None
        firsts = batch.source_tokens[batch.source_cumulative_lengths[:-1].long()].float()
        nll = firsts.repeat_interleave(batch.target_cumulative_lengths.diff())
        nll = nll + 1000.0 * (batch.labels >= SENTINEL)
        return CrossEntropy(nll.sum(), nll.sum(), nll)


def sample(group, source, labels):
    labels = np.array(labels, dtype=np.int32)
    return Sample(
        position=0,
        source_index=group,
        epoch=0,
        item=0,
        **GROUPS[group]._asdict(),
        example=Example(np.array([source, 2], dtype=np.int32), labels, labels),
    )


@pytest.mark.parametrize("samples_at_once", [1, 2, 8])
def test_losses_by_objective_and_language_with_the_true_source_and_another(monkeypatch, samples_at_once):
    monkeypatch.setattr(validation, "sum_over_ranks", lambda values: values)
    samples = [
        sample(0, 10, [SENTINEL, 5, 6]),
        sample(0, 20, [5]),
        sample(0, 30, [7, 7, SENTINEL]),
        sample(0, 40, []),  # an item too short to corrupt
        sample(1, 15, [9, 9]),
        sample(2, 5, [5]),
        sample(2, 6, [5, SENTINEL + 1]),
    ]
    validator = validation.Validator(
        samples,
        GROUPS,
        Tokenizer(),
        Process(0, 1, torch.device("cpu")),
        samples_at_once=samples_at_once,
        num_texts=0,
    )
    report = validator.run(Engine())
    # Sources 10, 20, 30 are German, 15 is French. Half of the set away: 30, 15, 10, 20. Of the same language:
    # 20, 30, 10, and the one French sample gets its neighbour's, 30.
    assert report.values == {
        "loss": pytest.approx((3 * 10 + 20 + 3 * 30 + 2 * 15 + 5 + 2 * 6 + 3000) / 12),
        "loss/span_corruption": pytest.approx((3 * 10 + 20 + 3 * 30 + 2 * 15 + 2000) / 9),
        "text/span_corruption": pytest.approx((2 * 10 + 20 + 2 * 30 + 2 * 15) / 7),
        "text_with_other_source/span_corruption": pytest.approx((2 * 30 + 15 + 2 * 10 + 2 * 20) / 7),
        "text_with_same_language/span_corruption": pytest.approx((2 * 20 + 30 + 2 * 10 + 2 * 30) / 7),
        "unigram_entropy/span_corruption": pytest.approx(
            -sum(share * np.log(share) for share in (2 / 7, 1 / 7, 2 / 7, 2 / 7))
        ),
        "loss/pairs": pytest.approx((5 + 2 * 6 + 1000) / 3),
        "text/pairs": pytest.approx((5 + 6) / 2),
        "text_with_other_source/pairs": pytest.approx((6 + 5) / 2),
        "text_with_same_language/pairs": pytest.approx((6 + 5) / 2),
        "unigram_entropy/pairs": 0.0,
        "loss/de": pytest.approx((3 * 10 + 20 + 3 * 30 + 2000) / 7),
        "loss/fr": 15.0,
        "loss/de-fr": pytest.approx((5 + 2 * 6 + 1000) / 3),
    }
    assert "if of the same language" in report.lines()
    assert report.texts == ""


def test_an_encoder_predicts_in_its_own_source_only(monkeypatch):
    monkeypatch.setattr(validation, "sum_over_ranks", lambda values: values)

    def masked(group, source, labels):
        parts = ([source, 2, 5], [1] * len(labels), labels)
        example = MaskedExample(*(np.array(part, dtype=np.int32) for part in parts))
        return replace(sample(group, source, labels), example=example)

    samples = [masked(0, 10, [5, 6]), masked(0, 30, []), masked(1, 15, [9]), masked(2, 5, [5])]
    validator = validation.Validator(
        samples, GROUPS, Tokenizer(), Process(0, 1, torch.device("cpu")), samples_at_once=2, num_texts=0
    )
    report = validator.run(Engine())
    assert {name: value for name, value in report.values.items() if "entropy" not in name} == {
        "loss": pytest.approx((2 * 10 + 15 + 5) / 4),
        "loss/span_corruption": pytest.approx((2 * 10 + 15) / 3),
        "text/span_corruption": pytest.approx((2 * 10 + 15) / 3),
        "loss/pairs": 5.0,
        "text/pairs": 5.0,
        "loss/de": 10.0,
        "loss/fr": 15.0,
        "loss/de-fr": 5.0,
    }
    assert "another sample" not in report.lines()
    assert validator.texts_title == "filled masks"
