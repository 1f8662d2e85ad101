"""What a run will read of every source."""

from __future__ import annotations

import numpy as np
import pytest
from made_corpus import write_corpus

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.plan import describe_plan
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.schedule import RunLength
from deltalm_ds.data.settings import DataSettings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    document = [[0, *range(5, 36), 2]]
    train = {
        "fr": [document] * 40,
        "lv": [document] * 4,
        "en-fr": [[[0, *range(5, 20), 2], [*range(5, 20), 2]]] * 10,
    }
    return Corpus.open(write_corpus(tmp_path_factory.mktemp("corpus") / "data", train))


def rows(text: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}


def test_samples_are_those_that_a_run_draws(corpus: Corpus) -> None:
    settings = DataSettings(max_source_length=32, max_target_length=32)
    run = RunLength(steps=700, batch_size=100)  # more than a block, and not a whole number of them
    reader = SampleReader(corpus, settings, 1, run)
    table = rows(describe_plan(reader, run))
    drawn = reader.order.locate(np.arange(run.num_samples)).source
    names = [source.name for source in reader.sources]
    for index, name in enumerate(names):
        count = int(np.count_nonzero(drawn == index))
        items = int(reader.order.num_items[index])
        assert table[name][1] == str(items)
        assert table[name][3:] == [f"{count:,}", f"{count / items:.2f}"]
    assert table["monolingual"][2] == "80.000%"
    assert list(table)[2:5] == sorted(names, key=lambda name: -float(table[name][4])), "most repeated first"
    assert "700 steps of 100 samples: 70,000 samples" in describe_plan(reader, run)


def test_caps_and_changes_are_named(corpus: Corpus) -> None:
    settings = DataSettings(
        max_source_length=32,
        max_target_length=32,
        max_epochs=200_000,
        mixture_changes=("50000:monolingual-share=0.5",),
        source_weights=("fr=3",),
    )
    run = RunLength(steps=100_000, batch_size=100)
    text = describe_plan(SampleReader(corpus, settings, 1, run), run)
    assert "the mixture changes at step 50,462, with a block of 65,536 samples" in text
    table = rows(text)
    assert table["lv"][-1] == "capped"
    assert float(table["lv"][5]) <= 200_000
    shares = [float(share.rstrip("%")) for share in table["monolingual"][2:4]]
    assert shares[0] == 80 > shares[1], "pairs get as much of the rest as the cap lets them have"


def test_a_reader_without_the_runs_length_refuses_what_needs_it(corpus: Corpus) -> None:
    settings = DataSettings(max_source_length=32, max_target_length=32, max_epochs=5)
    with pytest.raises(ValueError, match="length of the run"):
        SampleReader(corpus, settings, 1)
