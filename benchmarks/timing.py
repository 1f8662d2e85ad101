"""Times of functions that take turns, and what the device can do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]

WARM_UPS = 3
_FLUSHED_BYTES = 256 << 20  # more than the L2 cache of any GPU
_HEAD_START_CYCLES = 4_000_000  # two milliseconds in which the host runs ahead


@dataclass(frozen=True)
class Ceilings:
    """What was measured of the device in the same run."""

    copy_bytes_per_second: float
    """Of a copy, bytes read and written."""
    operations_per_second: float
    """Of a bf16 matrix product."""


class Clock:
    """Medians of functions that run in turns, each with a cold L2 cache."""

    def __init__(self, device: torch.device, rounds: int) -> None:
        self._device = device
        self._rounds = rounds
        self._on_gpu = device.type == "cuda"
        size = _FLUSHED_BYTES if self._on_gpu else 1
        self._flushed = torch.empty(size, dtype=torch.uint8, device=device)

    def medians(self, calls: Mapping[str, Call], required: str = "ours") -> dict[str, float]:
        """Median seconds of each; those that fail are left out, and said, but for the one that may not."""
        running = dict(calls)
        for name, call in calls.items():
            try:
                for _ in range(WARM_UPS):
                    call()
                self._wait()
            except Exception as error:
                if name == required:
                    raise
                print(f"    {name} does not run here: {first_line(error)}", flush=True)
                del running[name]
                if self._on_gpu:
                    torch.cuda.empty_cache()
        spans: dict[str, list[Callable[[], float]]] = {name: [] for name in running}
        names = list(running)
        for _ in range(self._rounds):
            for name in names:
                spans[name].append(self._time(running[name]))
            names.append(names.pop(0))  # each is first in its turn
            self._wait()
        return {name: statistics.median(span() for span in found) for name, found in spans.items()}

    def ceilings(self, size: int) -> Ceilings:
        """Of a copy of size² bytes × 16, and of a product of two size × size matrices."""
        # Random: constant numbers draw less power, and GPUs run them faster.
        source = torch.randn(size * size * 8, device=self._device).bfloat16()
        target = torch.empty_like(source)
        matrix = torch.randn(size, size, device=self._device).bfloat16()
        found = self.medians({"copy": lambda: target.copy_(source), "product": lambda: matrix @ matrix})
        return Ceilings(2 * source.nbytes / found["copy"], 2 * size**3 / found["product"])

    def _time(self, call: Call) -> Callable[[], float]:
        """Run once; the seconds are known after the device was waited for."""
        self._flushed.zero_()
        if not self._on_gpu:
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            return lambda: seconds
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(_HEAD_START_CYCLES)
        begin.record()
        call()
        end.record()
        return lambda: begin.elapsed_time(end) / 1000

    def _wait(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)


def first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__
