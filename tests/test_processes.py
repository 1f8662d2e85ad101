"""Worker processes: order, bounded memory, errors, and their end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deltalm_ds.errors import UserError
from deltalm_ds.processes import Workers

ROOT = Path(__file__).resolve().parent.parent


def slow_first(value: int) -> int:
    time.sleep(0.2 if value == 0 else 0)
    return value * value


def fail_at_odd(value: int) -> int:
    if value % 2:
        raise UserError(f"odd {value}")
    return value


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_order_and_items_are_taken_as_needed(count: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for value in range(40):
            taken.append(value)
            yield value

    with Workers(count) as workers:
        results = workers.map(slow_first, items())
        assert next(results) == 0
        assert len(taken) <= 8
        assert list(results) == [value * value for value in range(1, 40)]


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_error_in_order_is_raised(count: int) -> None:
    with Workers(count) as workers, pytest.raises(UserError, match="odd 3"):
        list(workers.map(fail_at_odd, [0, 2, 3, 4, 5]))


def test_no_worker_is_refused() -> None:
    with pytest.raises(ValueError, match="0"):
        Workers(0)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\n"
        "from deltalm_ds.processes import Workers\n"
        "def wait(item):\n"
        "    open(os.path.join(sys.argv[1], str(os.getpid())), 'w').close()\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    with Workers(2) as workers:\n"
        "        list(workers.map(wait, range(2)))\n"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(program), str(pids)], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: len(list(pids.iterdir())) == 2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    workers = [int(path.name) for path in pids.iterdir()]
    wait_until(lambda: not any(is_running(pid) for pid in workers))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"
