"""One step of DeltaLM on a GPU three ways: eager, torch.compile, and our kernels.

The same model, batch and weights; forward and backward passes, which take turns. Eager and compiled are what
one would write in torch: its attention, its own dropout, GELU and LayerNorm, full logits. Model FLOP
utilisation is against the matrix rate measured in the same run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from timing import Ceilings, Clock
from torch import Tensor

from deltalm_ds import ops
from deltalm_ds.model import DeltaLM, DeltaLMConfig, DropoutState, PackedTokens
from deltalm_ds.ops.cuda import choice
from deltalm_ds.training.flops import training_flops

Way = Literal["eager", "compiled", "fused"]
WAYS: tuple[Way, ...] = get_args(Way)

GOALS = {"eager": 1.35, "compiled": 1.1}
"""How many times as fast as the other ways the fused step of base is to be."""
MFU_GOAL = 0.63


@dataclass(frozen=True)
class Batch:
    """Sequences of one length on each side."""

    num_samples: int = 32
    source_length: int = 512
    target_length: int = 114

    @property
    def num_tokens(self) -> int:
        """Of both sides."""
        return self.num_samples * (self.source_length + self.target_length)


@dataclass(frozen=True)
class WayResult:
    """One way's step."""

    preset: str
    way: str
    seconds: float
    samples_per_second: float
    tokens_per_second: float
    utilisation: float
    """Model FLOPs a second over the measured matrix rate."""
    peak_bytes: int | None
    """Beyond weights and gradients; None where no device keeps count."""

    def markdown(self, fused_seconds: float) -> str:
        """A row of the table."""
        peak = "" if self.peak_bytes is None else f"{self.peak_bytes / 1e9:.2f}"
        return (
            f"| {self.preset} | {self.way} | {self.seconds * 1e3:,.1f} | {self.samples_per_second:,.1f} "
            f"| {self.tokens_per_second:,.0f} | {self.utilisation:.1%} | {peak} "
            f"| {self.seconds / fused_seconds:.2f} |"
        )


HEAD = """\
| preset | way | ms a step | samples/s | tokens/s | MFU | peak, GB | fused is so many times as fast |
|---|---|---|---|---|---|---|---|
"""


def measure(
    device: torch.device, preset: str, batch: Batch, clock: Clock, ceilings: Ceilings
) -> list[WayResult]:
    """Every way of a preset that runs here; fused must."""
    config = DeltaLMConfig.preset(preset)
    torch.manual_seed(0)
    model = DeltaLM(config).to(device, torch.bfloat16)
    steps: dict[str, Callable[[], Tensor]] = {way: _step(model, way, batch, device) for way in WAYS}
    seconds = clock.medians(steps, required="fused")
    peaks = {way: _peak(steps[way], model, device) for way in seconds}
    lengths = (np.full(batch.num_samples, n) for n in (batch.source_length, batch.target_length))
    flops = training_flops(config, *lengths, batch.num_samples * batch.target_length)
    torch.compiler.reset()
    return [
        WayResult(
            preset=preset,
            way=way,
            seconds=time,
            samples_per_second=batch.num_samples / time,
            tokens_per_second=batch.num_tokens / time,
            utilisation=flops / time / ceilings.operations_per_second,
            peak_bytes=peaks[way],
        )
        for way, time in seconds.items()
    ]


def markdown(results: list[WayResult], batch: Batch) -> str:
    """The table, and whether base met its goals."""
    fused = {result.preset: result.seconds for result in results if result.way == "fused"}
    lines = "".join(result.markdown(fused.get(result.preset, float("nan"))) + "\n" for result in results)
    return (
        f"Forward and backward of {batch.num_samples} samples, source {batch.source_length}, "
        f"target {batch.target_length}, bf16, dropout 0.1.\n\n{HEAD}{lines}\n{_verdict(results)}\n"
    )


def _verdict(results: list[WayResult]) -> str:
    base = {result.way: result for result in results if result.preset == "base"}
    if "fused" not in base:
        return "Goals of base: not measured."
    parts = [f"MFU ≥ {MFU_GOAL:.0%}: {base['fused'].utilisation:.1%}"]
    is_met = base["fused"].utilisation >= MFU_GOAL
    for way, needed in GOALS.items():
        if way not in base:
            parts.append(f"times as fast as {way} ≥ {needed}: not measured")
            continue
        reached = base[way].seconds / base["fused"].seconds
        parts.append(f"times as fast as {way} ≥ {needed}: {reached:.2f}")
        is_met = is_met and reached >= needed
    return f"Goals of base: {', '.join(parts)}; {'met' if is_met else '**not met**'}."


def _step(model: DeltaLM, way: Way, batch: Batch, device: torch.device) -> Callable[[], Tensor]:
    """Forward and backward; every call chooses its way first, for the choice is the process's."""
    generator = torch.Generator().manual_seed(4)
    num_rows = model.config.vocabulary_rows

    def packed(length: int) -> PackedTokens:
        rows = torch.randint(4, num_rows, (batch.num_samples, length), generator=generator)
        return PackedTokens.from_sequences(list(rows)).to(device)

    source, decoder_input = packed(batch.source_length), packed(batch.target_length)
    labels = torch.randint(4, num_rows, (batch.num_samples * batch.target_length,), generator=generator)
    labels = labels.to(device)
    run = torch.compile(model) if way == "compiled" else model

    def step() -> Tensor:
        os.environ[choice.VARIABLE] = "kernel" if way == "fused" else "reference"
        choice.choose_kernels(device.type)
        model.zero_grad(set_to_none=True)
        with contextlib.nullcontext() if way == "fused" else mock.patch.multiple(ops, **_PLAIN):
            loss = run(source, decoder_input, labels, 0.0, "fairseq", DropoutState(seed=1, step=2))[0]
            loss.backward()
        return loss

    return step


def _plain_add(x: Tensor, bias: Tensor, residual: Tensor, dropout: ops.Dropout | None) -> Tensor:
    return residual + _plain_dropout(x + bias, dropout)


def _plain_add_norm(
    x: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    dropout: ops.Dropout | None,
    epsilon: float,
) -> Tensor:
    return F.layer_norm(_plain_add(x, bias, residual, dropout), gamma.shape, gamma, beta, epsilon)


def _plain_dropout(x: Tensor, dropout: ops.Dropout | None) -> Tensor:
    return x if dropout is None else F.dropout(x, dropout.probability)


def _plain_gelu_linear(x: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    return F.linear(F.gelu(x + bias), weight)


def _plain_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor, *_: object) -> ops.CrossEntropy:
    """Without smoothing."""
    nll = F.cross_entropy(F.linear(hidden, weight).float(), target, reduction="none")
    return ops.CrossEntropy(nll.sum(), nll.detach().sum(), nll.detach())


_PLAIN = {
    "dropout_add": _plain_add,
    "dropout_add_layer_norm": _plain_add_norm,
    "apply_dropout": _plain_dropout,
    "bias_gelu_linear": _plain_gelu_linear,
    "linear_cross_entropy": _plain_cross_entropy,
}


def _peak(step: Callable[[], Tensor], model: DeltaLM, device: torch.device) -> int | None:
    """Bytes of a second step beyond weights and gradients."""
    if device.type != "cuda":
        return None
    step()
    model.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    return torch.cuda.max_memory_allocated() - before - gradients
