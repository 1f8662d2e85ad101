"""What nvidia-smi answers, read; the answers are made up, in its documented form."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from fake_nvidia_smi import put_first, write_nvidia_smi

from deltalm_ds.diagnosing import gpus

DEVICE = torch.device("cuda", 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PATH", put_first(tmp_path))
    with mock.patch.object(gpus, "_uuid", return_value="GPU-1"):
        yield tmp_path


def test_a_healthy_gpu_at_rest_and_at_work(folder: Path) -> None:
    write_nvidia_smi(folder)
    assert gpus.has_nvidia_smi()
    assert gpus.gpu_at_rest(DEVICE) == gpus.GpuAtRest(
        name="NVIDIA H100 80GB HBM3",
        driver="550.54.15",
        memory_bytes=523 << 20,
        uncorrected_errors=0,
        is_remapping_pending=False,
        is_remapping_failed=False,
        other_processes=[],
    )
    assert gpus.gpu_at_work("GPU-1") == gpus.GpuAtWork(
        celsius=61, clock_mhz=1485, max_clock_mhz=1980, throttle_reasons=4
    )


def test_only_the_own_gpu_is_asked(folder: Path) -> None:
    write_nvidia_smi(folder, body=f'printf "%s\\n" "$*" >> {folder}/asked')
    gpus.gpu_at_rest(DEVICE)
    gpus.gpu_at_work("GPU-1")
    asked = (folder / "asked").read_text().splitlines()
    assert len(asked) == 4
    assert all("--id=GPU-1" in line and "--format=csv,noheader,nounits" in line for line in asked)


def test_a_sick_gpu(folder: Path) -> None:
    changes = {
        "gpu=name": "NVIDIA H100 80GB HBM3, 550.54.15, 70000, 12",
        "remapped-rows": "Yes, Yes",
        "compute-apps": f"4242\n{os.getpid()}",
    }
    write_nvidia_smi(folder, **changes)
    seen = gpus.gpu_at_rest(DEVICE)
    assert (seen["memory_bytes"], seen["uncorrected_errors"]) == (70000 << 20, 12)
    assert seen["is_remapping_pending"]
    assert seen["is_remapping_failed"]
    assert seen["other_processes"] == [4242], "without this process"


def test_what_a_gpu_does_not_support(folder: Path) -> None:
    changes = {
        "gpu=name": "NVIDIA GeForce RTX 4090, 550.54.15, 18, [N/A]",
        "gpu=temperature": "40, [Not Supported], [N/A], [N/A]",
        "remapped-rows": "",
    }
    write_nvidia_smi(folder, **changes)
    seen = gpus.gpu_at_rest(DEVICE)
    assert (seen["uncorrected_errors"], seen["is_remapping_failed"]) == (None, False)
    assert gpus.gpu_at_work("GPU-1") == gpus.GpuAtWork(
        celsius=40, clock_mhz=None, max_clock_mhz=None, throttle_reasons=0
    )


def test_a_program_that_fails_or_hangs_is_an_error_of_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nvidia_smi(folder, body='echo "No devices were found"; exit 6')
    with pytest.raises(subprocess.SubprocessError, match=r"^nvidia-smi: No devices were found$"):
        gpus.gpu_at_rest(DEVICE)
    monkeypatch.setattr(gpus, "_SECONDS_TO_ANSWER", 0.1)
    write_nvidia_smi(folder, body="exec sleep 60")
    with pytest.raises(subprocess.SubprocessError, match=r"^nvidia-smi did not answer within 0\.1 s$"):
        gpus.gpu_at_rest(DEVICE)


def test_the_gpu_is_looked_at_in_the_middle_of_the_product(folder: Path) -> None:
    write_nvidia_smi(folder, body=f"touch {folder}/asked")

    def product(device: torch.device, seconds: float) -> float:
        while not (folder / "asked").exists():
            pass
        return 5e14

    with mock.patch.object(gpus, "measure_product", product):
        speed, seen = gpus.product_under_watch(DEVICE, 0.01)
    assert (speed, seen["celsius"]) == (5e14, 61)


def test_reasons_in_words() -> None:
    assert gpus.slowdowns(0x4 | 0x8 | 0x80) == ["the hardware", "an external power brake"]
    assert gpus.slowdowns(0x1 | 0x4 | 0x20) == []
    assert gpus.coolings(0x20) == ["the driver for heat"]
