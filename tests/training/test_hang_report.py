from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltalm_ds.training.hang_report import Standing, most_behind, one_line, table


def ranks(*changed: dict[str, Any]) -> dict[int, Standing]:
    """Ranks that all wait alike in step 8, but for what is changed."""
    alike: dict[str, Any] = {
        "host": "n1",
        "phase": "step",
        "step": 7,
        "batch": 2,
        "idle_seconds": 61.0,
        "limit_seconds": 60.0,
        "num_collectives": 40,
        "place": "all_reduce (distributed/distributed_c10d.py:9)",
        "posted_at": 0.0,
        "has_answered": True,
    }
    return {rank: Standing(rank=rank, **alike | own) for rank, own in enumerate(changed)}


LEFT = {"phase": "left", "has_answered": False}
SILENT = {"has_answered": False}


@pytest.mark.parametrize(
    ("standings", "rank", "reason"),
    [
        (ranks({}), 0, ""),
        (ranks({}, {"num_collectives": 39}, {}), 1, "1 collective behind"),
        (ranks({"idle_seconds": 99.0}, {"num_collectives": 38}), 1, "2 collectives behind"),
        (ranks({}, {"step": 6}), 1, "1 step behind"),
        (ranks({}, {"step": 5, "num_collectives": 30}), 1, "2 steps behind, 10 collectives behind"),
        (ranks({"idle_seconds": 99.0}, {}, SILENT), 2, "its Python does not run"),
        (ranks({}, {"num_collectives": 39} | SILENT), 1, "1 collective behind, its Python does not run"),
        (ranks({"num_collectives": 39}, SILENT), 0, "1 collective behind"),
        (ranks({}, LEFT | {"num_collectives": 39}), 1, "1 collective behind"),
        (ranks({}, LEFT), 0, "no rank is behind another, it is idle for longest"),
        (ranks({}, {"idle_seconds": 62.0}, {}), 1, "no rank is behind another, it is idle for longest"),
    ],
)
def test_the_rank_that_is_behind(standings: dict[int, Standing], rank: int, reason: str) -> None:
    culprit, why = most_behind(standings)
    assert (culprit.rank, why) == (rank, reason)


def test_one_line() -> None:
    sleeping = {"num_collectives": 39, "host": "n2", "place": "read (data/loader.py:5)"}
    assert one_line(ranks({}, sleeping), 2, Path("out/hang/step_8")) == (
        "hang: rank 1 on n2 made no progress for 61 s (limit 60 s) in step 8, micro-batch 2, at read "
        "(data/loader.py:5); 1 collective behind. Stacks: out/hang/step_8-rank_*.txt"
    )


def test_one_line_names_ranks_without_stacks() -> None:
    silent = SILENT | {"num_collectives": 39, "place": ""}
    assert one_line(ranks({}, silent), 4, Path("out/hang/step_8")) == (
        "hang: rank 1 on n1 made no progress for 61 s (limit 60 s), when last heard of, in step 8, "
        "micro-batch 2; 1 collective behind, its Python does not run; never heard of rank 2, 3. "
        "Stacks: out/hang/step_8-rank_*.txt, of rank 1 in out/hang/held-rank_*.txt if at all"
    )
    many = one_line(ranks({}, *[SILENT] * 12), 13, Path("h/s"))
    assert "of rank 1, 2, 3, 4, 5, 6, 7, 8 and 4 more in" in many


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ("start", "at the start"),
        ("validation", "in the validation after step 7, batch 2"),
        ("save", "saving after step 7"),
        ("left", "having left training after step 7"),
    ],
)
def test_where_a_rank_stands(phase: str, words: str) -> None:
    assert ranks({"phase": phase})[0].where() == words


def test_the_table_has_a_line_for_each_rank() -> None:
    heading, first, second = table(ranks({}, SILENT | {"place": ""})).splitlines()
    assert heading.startswith("rank  host  phase  steps  batch  idle s  collectives  answered  ")
    assert first.split()[:8] == ["0", "n1", "step", "7", "2", "61.0", "40", "yes"]
    assert second.split() == ["1", "n1", "step", "7", "2", "61.0", "40", "no", "?"]
