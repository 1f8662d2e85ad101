from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from distributed import DistributedRun, run_distributed


def describe(word: str) -> list[str]:
    print("printed", word)
    return [word, os.environ["RANK"], os.environ["WORLD_SIZE"]]


def fail_on_rank_1(seconds: float) -> None:
    if os.environ["RANK"] == "1":
        raise ValueError("this is why")
    time.sleep(seconds)


def leave_a_child(seconds: float, folder: str) -> None:
    print("hanging", file=sys.stderr, flush=True)
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    aside = Path(folder) / f"{child.pid}.tmp"
    aside.touch()
    aside.rename(Path(folder) / str(child.pid))
    time.sleep(seconds)


def device_of_cpu_beside_a_gpu() -> str:
    from deltalm_ds.training.distributed import join_processes

    with mock.patch("torch.cuda.is_available", return_value=True), mock.patch("torch.cuda.set_device"):
        return str(join_processes().device)


def device_of_cuda() -> list[str]:
    import torch

    from deltalm_ds.training.distributed import join_processes

    accelerator = mock.Mock()
    accelerator.device_name.return_value = "cuda"
    accelerator.communication_backend_name.return_value = "gloo"
    with mock.patch("deepspeed.get_accelerator", return_value=accelerator):
        device = join_processes().device
    torch.distributed.barrier()  # a rank that leaves at once breaks the other's joining
    return [str(device), *map(str, accelerator.set_device.call_args.args)]


def threads_by_launcher(environments: list[dict[str, str]]) -> list[int]:
    import torch

    from deltalm_ds.training.distributed import join_processes

    del os.environ["OMP_NUM_THREADS"], os.environ["LOCAL_WORLD_SIZE"]
    threads = []
    for environment in environments:
        with mock.patch.dict(os.environ, environment), mock.patch("os.sched_getaffinity") as cores:
            cores.return_value = range(6)
            join_processes()
        threads.append(torch.get_num_threads())
    return threads


def test_values_and_output_by_rank() -> None:
    outcomes = run_distributed(describe, 2, word="so")
    assert [outcome.value for outcome in outcomes] == [["so", "0", "2"], ["so", "1", "2"]]
    assert [outcome.stdout for outcome in outcomes] == ["printed so\n"] * 2


def test_the_device_is_deepspeeds_choice() -> None:
    (outcome,) = run_distributed(device_of_cpu_beside_a_gpu, 1)
    assert outcome.value == "cpu"
    outcomes = run_distributed(device_of_cuda, 2)
    assert [outcome.value for outcome in outcomes] == [["cuda:0", "0"], ["cuda:1", "1"]]


def test_processes_of_any_launcher_share_the_cores() -> None:
    names = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")
    environments = [{}, *({name: "2"} for name in names)]
    (outcome,) = run_distributed(threads_by_launcher, 1, environments=environments)
    assert outcome.value == [6, 3, 3, 3]


def test_the_first_failure_is_shown_and_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed._SECONDS_FOR_THE_OTHERS", 0.1)
    with pytest.raises(AssertionError, match=r"(?s)rank 1 ended with 1.*this is why"):
        run_distributed(fail_on_rank_1, 2, seconds=500)
    outcomes = run_distributed(fail_on_rank_1, 2, seconds=500, expect_failure=True)
    assert [outcome.returncode for outcome in outcomes] == [-9, 1]


def test_nothing_outlives_its_time(tmp_path: Path) -> None:
    run = DistributedRun(leave_a_child, 2, {"seconds": 500, "folder": str(tmp_path)})
    assert eventually(lambda: len([path for path in tmp_path.iterdir() if not path.suffix]) == 2)
    with pytest.raises(TimeoutError, match=r"(?s)ranks \[0, 1\].*rank 1:\nhanging"):
        run.wait(0.1)
    assert eventually(lambda: not any(runs(child.name) for child in tmp_path.iterdir()))


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def runs(process: str) -> bool:
    try:
        return (Path("/proc") / process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
