"""What the parameters of a new model begin as, drawn in parts.

Every parameter is drawn by itself, from the seed and its own name, and in blocks, each with a generator of
its own: so any part of any parameter can be had without the rest, and is the same whoever draws it. A process
of many then draws its own share of a model that none of them could hold.

The numbers are NumPy's (SFC64, seeded with BLAKE2b of seed, name and block), made without vector instructions
and so the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BLOCK_SIZE = 1 << 18
"""Elements drawn by one generator; another number would give other weights."""

_RULE = "starts_as"
_SEEDS = 2**62


class Weights(Protocol):
    """The numbers that a model begins with, wherever they are, read a part of a parameter at a time."""

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of the flattened parameter: [stop - start] fp32, on the CPU."""

    def release(self) -> None:
        """Let go of files and memory; nothing can be read afterwards."""


@dataclass(frozen=True)
class Constant:
    """The same number everywhere."""

    value: float

    def fill(self, values: NDArray[np.float32], generator: np.random.Generator) -> None:
        """Fill `values`."""
        values.fill(self.value)


@dataclass(frozen=True)
class Uniform:
    """Uniform in [-bound, bound)."""

    bound: float

    def fill(self, values: NDArray[np.float32], generator: np.random.Generator) -> None:
        """Fill `values`."""
        generator.random(out=values, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(2 * self.bound)


@dataclass(frozen=True)
class NormalRows:
    """A table [rows, width] of N(0, 1 / width), one row of which is zero."""

    width: int
    zero_row: int

    def fill(self, values: NDArray[np.float32], generator: np.random.Generator) -> None:
        """Fill `values`, the row of zeros too."""
        generator.standard_normal(out=values, dtype=np.float32)
        values *= np.float32(self.width**-0.5)


Rule = Constant | Uniform | NormalRows


def xavier_uniform(outputs: int, inputs: int, gain: float = 1.0) -> Uniform:
    """Of a weight [outputs, inputs] (Glorot and Bengio, "Understanding the difficulty of training deep
    feedforward neural networks", 2010).
    """
    return Uniform(gain * math.sqrt(6 / (outputs + inputs)))


def linear_uniform(inputs: int) -> Uniform:
    """Of weight and bias of a torch.nn.Linear that reads so many features."""
    return Uniform(inputs**-0.5)


def parameter(shape: Sequence[int], rule: Rule) -> nn.Parameter:
    """A parameter without numbers that `rule` says how to draw."""
    made = nn.Parameter(torch.empty(*shape))
    setattr(made, _RULE, rule)
    return made


class NewWeights:
    """Those of a new model. It needs no memory: what is asked for is drawn."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        """Of `model` as its constructor leaves it, on the meta device or any other."""
        self._drawn = {name: (made.numel(), rule_of(made)) for name, made in model.named_parameters()}
        self._seed = seed

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of the flattened parameter: [stop - start] fp32, on the CPU."""
        size, rule = self._drawn[name]
        assert 0 <= start <= stop <= size, (name, start, stop, size)
        values = np.empty(stop - start, np.float32)

        def draw(number: int) -> None:
            first, last = number * BLOCK_SIZE, min((number + 1) * BLOCK_SIZE, size)
            generator = _generator(self._seed, name, number)
            if start <= first and last <= stop:
                rule.fill(values[first - start : last - start], generator)
                return
            block = np.empty(last - first, np.float32)
            rule.fill(block, generator)
            here = slice(max(start, first), min(stop, last))
            values[here.start - start : here.stop - start] = block[here.start - first : here.stop - first]

        blocks = range(start // BLOCK_SIZE, -(-stop // BLOCK_SIZE))
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # NumPy lets go of the GIL meanwhile
            list(threads.map(draw, blocks))
        if isinstance(rule, NormalRows):
            zeros = slice(rule.zero_row * rule.width, (rule.zero_row + 1) * rule.width)
            values[max(zeros.start - start, 0) : max(zeros.stop - start, 0)] = 0
        return torch.from_numpy(values)

    def release(self) -> None:
        """Nothing is held."""


def whole(weights: Weights, name: str, shape: Sequence[int]) -> Tensor:
    """A parameter of this shape, fp32, on the CPU."""
    return weights.part(name, 0, math.prod(shape)).view(*shape)


@torch.no_grad()
def initialise(model: nn.Module, seed: int | None) -> None:
    """Give a new model its numbers, with None by a seed from torch's generator; none on the meta device."""
    if any(made.is_meta for made in model.parameters()):
        return
    if seed is None:
        seed = int(torch.randint(_SEEDS, (), device="cpu"))
    weights = NewWeights(model, seed)
    for name, made in model.named_parameters():
        made.data = whole(weights, name, made.shape).to(made)


def rule_of(made: nn.Parameter) -> Rule:
    """How `parameter` was told to draw it."""
    rule: Any = getattr(made, _RULE)
    return rule


def _generator(seed: int, name: str, block: int) -> np.random.Generator:
    digest = hashlib.blake2b(json.dumps([seed, name, block]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
