"""A GPU's health, as nvidia-smi tells it.

Fields and reasons as in `nvidia-smi --help-query-gpu` and nvml.h. The older name, clocks_throttle_reasons, is
understood by drivers before and after the renaming to clocks_event_reasons in 535.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import torch

from deltalm_ds.diagnosing.product import measure_product

_SECONDS_TO_ANSWER = 60.0  # without its persistence daemon, a driver takes long to wake
_REST_FIELDS = ("name", "driver_version", "memory.used", "ecc.errors.uncorrected.volatile.total")
_REMAPPED_FIELDS = ("remapped_rows.pending", "remapped_rows.failure")
_LOAD_FIELDS = ("temperature.gpu", "clocks.sm", "clocks.max.sm", "clocks_throttle_reasons.active")
_BYTES_PER_MIB = 1 << 20

_SLOWED_BY = {0x08: "the hardware", 0x40: "the hardware for heat", 0x80: "an external power brake"}
_COOLED_BY = {0x20: "the driver for heat"}


class GpuAtRest(TypedDict):
    """Before we use it; None where the GPU does not say."""

    name: str
    driver: str
    memory_bytes: int | None
    """In use, by whomever."""
    uncorrected_errors: int | None
    """ECC errors that could not be corrected, since the driver was loaded."""
    is_remapping_pending: bool
    """Whether memory rows will be replaced at the next reset."""
    is_remapping_failed: bool
    """Whether no spare rows were left."""
    other_processes: list[int]
    """Numbers of other processes that compute on it."""


class GpuAtWork(TypedDict):
    """In the middle of the matrix product; None where the GPU does not say."""

    celsius: float | None
    clock_mhz: float | None
    max_clock_mhz: float | None
    throttle_reasons: int
    """nvml.h's bits."""


def gpu_at_rest(device: torch.device) -> GpuAtRest:
    """Ask about the GPU of `device`; SubprocessError if nvidia-smi fails or does not answer."""
    uuid = _uuid(device)
    name, driver, memory, errors = _query("gpu", _REST_FIELDS, uuid)[0]
    remapped = _query("remapped-rows", _REMAPPED_FIELDS, uuid)
    pending, failed = remapped[0] if remapped else ("", "")
    memory_mib, uncorrected = _number(memory), _number(errors)
    processes = [int(pid) for (pid,) in _query("compute-apps", ("pid",), uuid)]
    return GpuAtRest(
        name=name,
        driver=driver,
        memory_bytes=None if memory_mib is None else int(memory_mib * _BYTES_PER_MIB),
        uncorrected_errors=None if uncorrected is None else int(uncorrected),
        is_remapping_pending=_is_yes(pending),
        is_remapping_failed=_is_yes(failed),
        other_processes=[pid for pid in processes if pid != os.getpid()],
    )


def gpu_at_work(uuid: str) -> GpuAtWork:
    """Ask about the GPU `uuid` while it computes."""
    celsius, clock, max_clock, reasons = _query("gpu", _LOAD_FIELDS, uuid)[0]
    return GpuAtWork(
        celsius=_number(celsius),
        clock_mhz=_number(clock),
        max_clock_mhz=_number(max_clock),
        throttle_reasons=int(reasons, 16) if reasons.startswith("0x") else 0,
    )


def product_under_watch(device: torch.device, seconds: float) -> tuple[float, GpuAtWork]:
    """FLOP/s of the matrix product, and the GPU's state in the middle of it."""
    uuid = _uuid(device)

    def look() -> GpuAtWork:
        time.sleep(seconds / 2)
        return gpu_at_work(uuid)

    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(look)
        speed = measure_product(device, seconds)
        return speed, seen.result()


def has_nvidia_smi() -> bool:
    """Whether this node, or this container, has the program."""
    return shutil.which("nvidia-smi") is not None


def slowdowns(reasons: int) -> list[str]:
    """What the hardware slows the clocks down for: a fault of cooling or power."""
    return [words for bit, words in _SLOWED_BY.items() if reasons & bit]


def coolings(reasons: int) -> list[str]:
    """What the driver slows the clocks down for lest it gets too hot."""
    return [words for bit, words in _COOLED_BY.items() if reasons & bit]


def _query(kind: str, names: tuple[str, ...], uuid: str) -> list[list[str]]:
    """A row of `names` for everything of that kind, of one GPU."""
    what = (f"--query-{kind}={','.join(names)}", f"--id={uuid}")
    command = ["nvidia-smi", *what, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_ANSWER)
    except subprocess.TimeoutExpired:
        message = f"nvidia-smi did not answer within {_SECONDS_TO_ANSWER:g} s"
        raise subprocess.SubprocessError(message) from None
    if done.returncode:
        raise subprocess.SubprocessError(f"nvidia-smi: {done.stdout.strip() or done.stderr.strip()}")
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [row for row in rows if len(row) == len(names)]


def _number(text: str) -> float | None:
    """A number, or None for "[N/A]" and its like."""
    try:
        return float(text)
    except ValueError:
        return None


def _is_yes(text: str) -> bool:
    return text.strip().lower() in ("yes", "1")


def _uuid(device: torch.device) -> str:
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
