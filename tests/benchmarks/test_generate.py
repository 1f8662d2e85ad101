"""The comparison of searches: turns, ratios, and whose outputs are ours."""

from __future__ import annotations

import pytest

pytest.importorskip("ctranslate2")
pytest.importorskip("transformers")

import generate

from deltalm_ds.model import DeltaLMConfig


def test_batches_keep_the_order() -> None:
    seen = []

    def search(batch: list[list[int]]) -> list[list[int]]:
        seen.append(len(batch))
        return [[source[0], 2] for source in batch]

    side = generate.by_batches(generate.Settings(batch_tokens=6), search)
    assert side([[4, 2], [5, 9, 9, 2], [6, 2]]) == [[4, 2], [5, 2], [6, 2]]
    assert seen == [1, 2]


def test_the_page() -> None:
    sides = {"ours": lambda sources: [[4, 5, 2]] * 2, "peer": lambda sources: [[4, 5, 2], [6, 2]]}
    found = generate.measured(sides, [[4, 2]] * 2, rounds=3)
    assert [len(side.seconds) for side in found.values()] == [3, 3]
    found["ours"].seconds[:], found["peer"].seconds[:] = [1, 1, 2], [5, 10, 10]
    page = generate.markdown(generate.Settings(rounds=3), DeltaLMConfig(), found)
    assert "| ours | 6 | 1.00 | 6 | 2 of 2 |" in page
    assert "| peer | 0 | 6.00 | 5 | 1 of 2 |" in page
