from __future__ import annotations

import time
from typing import Any

import pytest
import torch.distributed as dist

from deltalm_ds.training.hang_report import Standing
from deltalm_ds.training.hang_store import HangStore


def standing(rank: int, **changed: Any) -> Standing:
    alike: dict[str, Any] = {
        "host": "n1",
        "phase": "step",
        "step": 7,
        "batch": 2,
        "idle_seconds": 5.0,
        "limit_seconds": 60.0,
        "num_collectives": 40,
        "place": "",
        "posted_at": time.time() - 100.0,
        "has_answered": False,
    }
    return Standing(rank=rank, **alike | changed)


@pytest.fixture
def server() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def stores(server: dist.TCPStore) -> list[HangStore]:
    return [HangStore(server, "talk", rank, 3) for rank in range(3)]


def test_the_first_to_raise_the_alarm_names_it(stores: list[HangStore]) -> None:
    assert [store.alarm() for store in stores] == [None] * 3
    assert stores[1].raise_alarm("step_8") == "step_8"
    assert stores[0].raise_alarm("step_9") == "step_8"
    assert [store.alarm() for store in stores] == ["step_8"] * 3


def test_rank_0_tells_once_all_have_answered(stores: list[HangStore]) -> None:
    told: list[dict[int, Standing]] = []
    stores[1].answer(standing(1))
    stores[2].leave(standing(2))
    stores[0].answer(standing(0))
    stores[0].report(told.append, 60.0)
    stores[1].report(told.append, 60.0)
    (standings,) = told
    assert {rank: (one.phase, one.has_answered, one.idle_seconds) for rank, one in standings.items()} == {
        0: ("step", True, 5.0),
        1: ("step", True, 5.0),
        2: ("left", False, 5.0),
    }


def test_another_rank_tells_where_rank_0_does_not(stores: list[HangStore]) -> None:
    told: list[dict[int, Standing]] = []
    stores[0].post(standing(0))
    stores[1].answer(standing(1))
    stores[1].report(told.append, 0.3)
    stores[0].report(told.append, 0.3)
    (standings,) = told
    assert sorted(standings) == [0, 1]
    assert standings[0].idle_seconds > 100.0  # since it was heard of last
