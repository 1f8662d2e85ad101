import json

import numpy as np
import pytest
import torch

from deltalm_ds.data.batches import pack_samples
from deltalm_ds.data.loader import to_tensors
from deltalm_ds.data.objectives import Example
from deltalm_ds.data.samples import GroupName, Sample
from deltalm_ds.ops import CrossEntropy
from deltalm_ds.training.totals import Totals

CPU = torch.device("cpu")
GROUPS = [
    GroupName("span_corruption", "fr"),
    GroupName("span_corruption", "de"),
    GroupName("translation", "de-fr"),
]


def made_batch(lengths_by_group):
    samples = [
        Sample(
            position=number,
            source_index=group,
            epoch=0,
            item=0,
            objective=GROUPS[group].objective,
            language=GROUPS[group].language,
            example=Example(*(np.arange(4, 4 + length, dtype=np.int32) for _ in range(3))),
        )
        for number, (group, length) in enumerate(lengths_by_group)
    ]
    return to_tensors(pack_samples(samples), CPU)


def made_sums(per_token):
    tokens = torch.tensor(per_token)
    return CrossEntropy(tokens.sum(), tokens.sum(), tokens)


def test_losses_are_means_over_the_tokens_of_a_group():
    totals = Totals(GROUPS, CPU)
    totals.add_losses(made_batch([(0, 1), (2, 2)]), made_sums([1.0, 2.0, 4.0]))
    totals.add_losses(made_batch([(0, 3)]), made_sums([5.0, 5.0, 5.0]))
    assert totals.losses() == {
        "nll": pytest.approx(22 / 6),
        "nll/span_corruption": pytest.approx(16 / 4),
        "nll/fr": pytest.approx(16 / 4),
        "nll/translation": pytest.approx(6 / 2),
        "nll/de-fr": pytest.approx(6 / 2),
    }
    assert totals.count("loss") == 22


def test_an_empty_micro_batch_counts_nothing():
    totals = Totals(GROUPS, CPU)
    totals.add_losses(made_batch([]), made_sums([0.0]))
    assert totals.losses() == {}
    assert totals.by_group.sum() == 0


def test_state_is_exact():
    totals = Totals(GROUPS, CPU)
    totals.add_losses(made_batch([(1, 3)]), made_sums([0.1, 0.2, 0.3]))
    totals.add_counts(samples=1, flops=1e18 + 4096)
    restored = Totals(GROUPS, CPU)
    restored.load_state(json.loads(json.dumps(totals.to_state())))
    assert torch.equal(restored.by_group, totals.by_group)
    assert torch.equal(restored.counts, totals.counts)


@pytest.mark.parametrize(
    "groups",
    [GROUPS[:2], [GROUPS[1], GROUPS[0], GROUPS[2]], [*GROUPS[:2], GroupName("translation", "de-en")]],
)
def test_sums_of_other_groups_are_not_taken_over(groups):
    totals = Totals(GROUPS, CPU)
    totals.add_losses(made_batch([(1, 1)]), made_sums([1.0]))
    totals.add_counts(samples=1)
    restored = Totals(groups, CPU)
    restored.load_state(totals.to_state())
    assert restored.by_group.sum() == 0
    assert restored.counts.sum() == 0
