"""How fast a device multiplies matrices."""

from __future__ import annotations

import statistics
import time

import torch

_FEWEST_PRODUCTS = 5


def measure_product(device: torch.device, seconds: float) -> float:
    """FLOP/s of a square matrix product, repeated for `seconds`.

    bf16, 8192 wide, on a GPU, where it is bound by arithmetic; fp32, 1024 wide, on a CPU. The time taken is
    the lower quartile: other programs disturb some products, and a sick device is slow in all.
    """
    is_cpu = device.type == "cpu"
    width, dtype = (1024, torch.float32) if is_cpu else (8192, torch.bfloat16)
    generator = torch.Generator(device).manual_seed(1)
    left, right = (torch.randn(width, width, device=device, generator=generator).to(dtype) for _ in range(2))
    product = torch.empty_like(left)

    def once() -> float:
        start = time.perf_counter()
        torch.mm(left, right, out=product)
        if not is_cpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()  # the first one loads and chooses kernels
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < _FEWEST_PRODUCTS or time.monotonic() < end:
        times.append(once())
    return 2 * width**3 / statistics.quantiles(times, n=4)[0]
