"""The whole check-up in two processes on two nodes, as it were, with one made ill in every way."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist
from distributed import Outcome, run_distributed
from fake_nvidia_smi import put_first, write_nvidia_smi
from small_disk import small_disk

from deltalm_ds.data.manifest import Manifest

ALL_REDUCE = dist.all_reduce
PACKAGE = "deltalm_ds.diagnosing"
# Small sizes, and wide limits: other work on this machine must not look like an illness.
QUICK = ["--disk-megabytes", "4", "--message-megabytes", "1", "--product-seconds", "0.1"]
WIDE = [
    *("--min-product-share", "0.02", "--min-disk-share", "0.02", "--min-pair-share", "0.02"),
    *("--max-clock-skew-seconds", "10", "--min-free-gigabytes", "0", "--min-memory-gigabytes", "0"),
]


def slow_clock() -> Any:
    """In place of the module time: what takes a second seems to take a thousand."""
    return SimpleNamespace(perf_counter=lambda: time.perf_counter() * 1000, monotonic=time.monotonic)


def hang(*_: object) -> float:
    time.sleep(600)
    raise AssertionError


def break_down(*_: object) -> float:
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nmore of it")


def wrong_time() -> float:
    return time.time() + 30


def all_reduce_slowly(*arguments: Any, **named: Any) -> None:
    time.sleep(0.2)
    ALL_REDUCE(*arguments, **named)


ILLNESSES = {
    "version": lambda: mock.patch(f"{PACKAGE}.versions.metadata.version", return_value="0.18.0"),
    "code": lambda: mock.patch(f"{PACKAGE}.versions.content_hash", return_value="f" * 64),
    "slow disk": lambda: mock.patch(f"{PACKAGE}.disk.time", slow_clock()),
    "clock": lambda: mock.patch(f"{PACKAGE}.clocks.now", wrong_time),
    "slow product": lambda: mock.patch(f"{PACKAGE}.product.time", slow_clock()),
    "broken product": lambda: mock.patch(f"{PACKAGE}.run.measure_product", break_down),
    "hanging product": lambda: mock.patch(f"{PACKAGE}.run.measure_product", hang),
    "hanging pair": lambda: mock.patch(f"{PACKAGE}.run.measure_pair", hang),
    "slow link": lambda: mock.patch(f"{PACKAGE}.network.dist.all_reduce", all_reduce_slowly),
    "no joining": lambda: mock.patch("deltalm_ds.training.distributed.join_processes", break_down),
    "GPU": lambda: mock.patch("torch.cuda.device_count", return_value=1),
    "none": contextlib.nullcontext,
}


def check_up(arguments: list[str], illness: str = "none", own: dict[str, list[str]] | None = None) -> None:
    """The command, on node n1, n2, … by rank; the last rank is ill, and each has its `own` options."""
    from deltalm_ds import doctor
    from deltalm_ds.commands import run

    rank = os.environ["RANK"]
    os.environ["SLURMD_NODENAME"] = f"n{int(rank) + 1}"
    is_ill = int(rank) == int(os.environ["WORLD_SIZE"]) - 1
    sys.argv = ["doctor", *arguments, *(own or {}).get(rank, [])]
    with ILLNESSES[illness if is_ill else "none"]():
        run("doctor", doctor.main)


def late(rank: int, arguments: list[str]) -> None:
    """One rank never comes."""
    if os.environ["RANK"] == str(rank):
        time.sleep(600)
    check_up(arguments)


def outcomes_of(**arguments: Any) -> list[Outcome]:
    return run_distributed(check_up, 2, timeout=100, expect_failure=True, **arguments)


def assert_excluded(outcomes: list[Outcome], reason: str, node: str = "n2") -> None:
    codes = [outcome.returncode for outcome in outcomes]
    assert codes == [3] + [0] * (len(outcomes) - 1), outcomes[0].stderr
    assert outcomes[0].stdout == f"exclude {node}\n"
    assert [outcome.stdout for outcome in outcomes[1:]] == [""] * (len(outcomes) - 1)
    bad = [line for line in outcomes[0].stderr.splitlines() if " is bad: " in line]
    assert len(bad) == 1
    assert bad[0].startswith(f"{node} is bad: ")
    assert reason in bad[0]


def test_fit_nodes(tmp_path: Path, small_corpus: Path) -> None:
    options = ["--output", tmp_path / "run", "--data", small_corpus, "--json", tmp_path / "all.json"]
    outcomes = outcomes_of(arguments=[*QUICK, *WIDE, *map(str, options)])
    assert [(outcome.returncode, outcome.stdout) for outcome in outcomes] == [(0, "")] * 2, outcomes[0].stderr
    lines = outcomes[0].stderr.splitlines()
    assert lines[-1] == "fit: 2 ranks on 2 nodes"
    assert sum(line.endswith(" well") for line in lines) == 2
    assert sum(line.startswith(tuple(f"{number}/12 " for number in range(1, 13))) for line in lines) == 12
    content = json.loads((tmp_path / "all.json").read_text())
    assert (content["exit_code"], content["exclude"], content["findings"]) == (0, [], [])
    assert content["all_reduce"] > 0
    for rank in content["ranks"]:
        assert rank["product"] > 0
        assert len(rank["pairs"]) == 1
        assert rank["disk"]["read_bytes_per_second"] > 0
        assert rank["data"] == Manifest.read(small_corpus).fingerprint
    assert abs(content["ranks"][1]["clock"]["offset_seconds"]) < 10
    assert list(tmp_path.iterdir()) == [tmp_path / "all.json"], "the run's folder is not made"


@pytest.mark.parametrize(
    ("illness", "reason"),
    [
        ("version", "deepspeed is 0.18.0, and 0."),
        ("code", "deltalm_ds is ffffffffffff, and "),
        ("clock", "its clock is 30.0 s ahead of the others'"),
        ("slow product", "rank 1 multiplies at "),
        ("broken product", "the matrix product failed on rank 1: CUDA error: uncorrectable ECC error"),
        ("GPU", "GPUs is 1, and 0 on rank 0"),
    ],
)
def test_an_ill_node(illness: str, reason: str) -> None:
    assert_excluded(outcomes_of(arguments=[*QUICK, *WIDE], illness=illness), reason)


def test_a_slow_disk(tmp_path: Path) -> None:
    options = [*QUICK, *WIDE, "--output", str(tmp_path)]
    assert_excluded(outcomes_of(arguments=options, illness="slow disk"), "writes --output at ")


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as folder:
        own = {"0": ["--output", str(tmp_path)], "1": ["--output", str(folder)]}
        outcomes = outcomes_of(arguments=[*QUICK, *WIDE], own=own)
    assert_excluded(outcomes, f"writing to --output failed on rank 1: {folder}: No space left on device")


def test_a_disk_that_is_full_for_all_is_nobodys_fault(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "1m") as folder:
        outcomes = outcomes_of(arguments=[*QUICK, *WIDE, "--output", str(folder)])
    assert [(outcome.returncode, outcome.stdout) for outcome in outcomes] == [(2, ""), (0, "")]
    assert outcomes[0].stderr.count(" is bad: ") == 2


def test_other_data_and_none(tmp_path: Path, small_corpus: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in small_corpus.rglob("*"):
        target = other / path.relative_to(small_corpus)
        target.mkdir() if path.is_dir() else target.symlink_to(path)
    (other / "manifest.json").unlink()
    replace(Manifest.read(small_corpus), seed=77).write(other)
    own = {"0": ["--data", str(small_corpus)], "1": ["--data", str(other)]}
    assert_excluded(outcomes_of(arguments=[*QUICK, *WIDE], own=own), "--data is ")

    (other / "manifest.json").unlink()
    outcomes = outcomes_of(arguments=[*QUICK, *WIDE], own=own)
    assert_excluded(outcomes, f"reading --data failed on rank 1: {other} is not a prepared folder")


def test_a_rank_that_hangs_is_named_in_time() -> None:
    outcomes = outcomes_of(arguments=[*QUICK, *WIDE, "--timeout-seconds", "5"], illness="hanging product")
    assert_excluded(outcomes, "n2 is bad: rank 1 did not finish the matrix product in time")


def test_a_rank_that_cannot_join_is_named_and_not_those_who_wait_for_it() -> None:
    outcomes = outcomes_of(arguments=[*QUICK, *WIDE, "--timeout-seconds", "5"], illness="no joining")
    assert_excluded(outcomes, "joining the process group failed on rank 1: CUDA error")


def test_of_four_a_pair_that_hangs_is_named() -> None:
    arguments = [*QUICK, *WIDE, "--timeout-seconds", "10"]
    outcomes = run_distributed(
        check_up, 4, timeout=100, expect_failure=True, arguments=arguments, illness="hanging pair"
    )
    assert [outcome.returncode for outcome in outcomes] == [3, 0, 0, 0]
    assert outcomes[0].stdout == "exclude n1,n4\n"
    for rank, node in ((0, "n1"), (3, "n4")):
        assert f"{node} is bad: rank {rank} did not finish all-reduce by pairs in time" in outcomes[0].stderr


def test_of_four_the_one_with_a_slow_link_is_named_and_not_its_partners() -> None:
    arguments = [*QUICK, *WIDE, "--min-pair-share", "0.2"]
    outcomes = run_distributed(
        check_up, 4, timeout=100, expect_failure=True, arguments=arguments, illness="slow link"
    )
    assert_excluded(outcomes, "rank 3 reduces at ", "n4")


SLURM = {"SLURM_JOB_NODELIST": "n[1-2]", "LOCAL_WORLD_SIZE": "1"}


@pytest.mark.parametrize(("rank", "others"), [(1, 0), (0, 1)])
def test_a_rank_that_never_comes_is_named_from_the_job(
    monkeypatch: pytest.MonkeyPatch, rank: int, others: int
) -> None:
    monkeypatch.setattr("distributed._SECONDS_FOR_THE_OTHERS", 0.1)
    arguments = [*QUICK, *WIDE, "--timeout-seconds", "2"]
    outcomes = run_distributed(
        late, 2, timeout=60, expect_failure=True, environment=SLURM, rank=rank, arguments=arguments
    )
    assert (outcomes[others].returncode, outcomes[others].stdout) == (3, f"exclude n{rank + 1}\n")
    said = outcomes[others].stderr
    assert f"rank {rank} did not " in said
    assert "within 2 s" in said


def test_a_rank_that_never_comes_from_where_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed._SECONDS_FOR_THE_OTHERS", 0.1)
    arguments = [*QUICK, *WIDE, "--timeout-seconds", "2"]
    outcomes = run_distributed(
        late,
        2,
        timeout=60,
        expect_failure=True,
        environment={"LOCAL_WORLD_SIZE": ""},
        rank=1,
        arguments=arguments,
    )
    assert (outcomes[0].returncode, outcomes[0].stdout) == (3, "")
    assert "rank 1 did not arrive within 2 s" in outcomes[0].stderr


def gpu_alone(arguments: list[str], path: str) -> None:
    """As if on one GPU, whose nvidia-smi comes from `path`."""
    import torch

    os.environ["PATH"] = path
    process = SimpleNamespace(device=torch.device("cuda", 0))
    with (
        mock.patch("deltalm_ds.training.distributed.join_processes", return_value=process),
        mock.patch("torch.distributed.destroy_process_group", return_value=None),
        mock.patch(f"{PACKAGE}.gpus._uuid", return_value="GPU-1"),
        mock.patch(f"{PACKAGE}.gpus.measure_product", return_value=6e14),
    ):
        check_up(arguments)


def test_one_gpu_well_and_ill_by_its_nvidia_smi(tmp_path: Path) -> None:
    arguments = [*QUICK, *WIDE]
    write_nvidia_smi(tmp_path)
    (outcome,) = run_distributed(gpu_alone, 1, arguments=arguments, path=put_first(tmp_path))
    assert "1 x NVIDIA H100 80GB HBM3, driver 550.54.15" in outcome.stderr
    (row,) = (line.split() for line in outcome.stderr.splitlines() if line.endswith(" well"))
    assert row[-3:] == ["61", "1,485", "well"]

    write_nvidia_smi(tmp_path, **{"gpu=name": "NVIDIA H100 80GB HBM3, 550.54.15, 523, 7"})
    outcomes = run_distributed(
        gpu_alone, 1, expect_failure=True, arguments=arguments, path=put_first(tmp_path)
    )
    assert_excluded(outcomes, "GPU of rank 0: 7 uncorrected ECC errors", "n1")
