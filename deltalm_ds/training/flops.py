"""How many floating-point operations a step needs, and what the hardware could do.

The count is analytic, since profilers miss fused kernels. A multiply-add is two operations; training is three
times the forward pass; recomputation under activation checkpointing is not counted.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.ops.products import calculation_dtype

NAMED_PEAKS = {
    "A100": 312.0,
    "A800": 312.0,
    "H100": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.0,
    "H200": 989.4,
    "H200 NVL": 835.5,
    "GH200": 989.4,
    "H800": 989.4,
    "B200": 2250.0,
    "GB200": 2500.0,
    "L40S": 362.0,
}
"""Dense bf16 and fp16 peaks in TFLOP/s from the makers' data sheets, by words of the device's name."""


def training_flops(
    config: DeltaLMConfig,
    source_lengths: NDArray[np.integer],
    target_lengths: NDArray[np.integer],
    num_labels: int,
) -> float:
    """Operations of forward and backward over packed sequences.

    source_lengths, target_lengths [sequences] in tokens; `num_labels` tokens have a loss. A model without
    decoder blocks is an encoder by itself, whose head has a layer of its own.
    """
    width, feed_forward = config.width, config.feed_forward_width
    sources, targets = source_lengths.astype(np.float64), target_lengths.astype(np.float64)
    num_sources, num_targets = float(sources.sum()), float(targets.sum())
    encoder = 2 * num_sources * (4 * width**2 + 2 * width * feed_forward)
    encoder += 4 * float((sources**2).sum()) * width
    num_feed_forwards = 1 if config.decoder == "standard" else 2
    decoder = 2 * num_targets * (6 * width**2 + num_feed_forwards * 2 * width * feed_forward)
    decoder += 4 * num_sources * width**2
    # Causal attention needs half of the square.
    decoder += 2 * float((targets**2).sum()) * width + 4 * float((sources * targets).sum()) * width
    head = 2 * num_labels * width * config.vocabulary_rows
    if not config.num_decoder_blocks:
        head += 2 * num_labels * width**2
    forward = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder + head
    return 3 * forward


@dataclass(frozen=True)
class Peak:
    """What model FLOP utilisation is measured against."""

    tflops: float
    """Of one device, in TFLOP/s."""
    name: str
    """Where the number comes from."""


def peak_of(device: torch.device, dtype: torch.dtype) -> Peak:
    """The data sheet's peak for a known GPU in half precision, else a matrix product measured now.

    It is measured in the dtype that products of `dtype` are taken in.
    """
    if device.type == "cuda" and dtype != torch.float32:
        name = torch.cuda.get_device_name(device)
        known = [part for part in NAMED_PEAKS if re.search(rf"\b{part}\b", name)]
        if known:
            part = max(known, key=len)
            return Peak(NAMED_PEAKS[part], f"data sheet of {part}, dense 16-bit")
    calculated = calculation_dtype(torch.empty(0, dtype=dtype, device=device))
    return Peak(_measure_matrix_product(device, calculated), f"{calculated} matrix product measured at start")


def _measure_matrix_product(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of the best of five products of square matrices, after one to warm up."""
    size = 8192 if device.type == "cuda" else 1024  # enough for full speed
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12
