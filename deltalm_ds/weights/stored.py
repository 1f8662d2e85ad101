"""Weights that lie somewhere, a file or memory, and tensors that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from deltalm_ds.model.new_weights import NewWeights


class StoredWeights:
    """Parameters as tensors in any dtype; of those in mapped files only what is asked for is read."""

    def __init__(self, tensors: Mapping[str, tuple[Tensor, ...]], drawn: NewWeights | None = None) -> None:
        """Of each parameter the tensors whose elements, one tensor behind the other, are its own; `drawn` has
        the parameters that are not among `tensors`.
        """
        self._tensors = dict(tensors)
        self._drawn = drawn

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Elements [start, stop) of the flattened parameter: [stop - start] fp32, in memory of their own."""
        if name not in self._tensors and self._drawn is not None:
            return self._drawn.part(name, start, stop)
        part = torch.empty(stop - start, dtype=torch.float32)
        first = 0
        for tensor in self._tensors[name]:
            last = first + tensor.numel()
            begin, end = max(start, first), min(stop, last)
            if begin < end:
                part[begin - start : end - start] = tensor.detach().flatten()[begin - first : end - first]
            first = last
        assert 0 <= start <= stop <= first, (name, start, stop, first)
        return part

    def release(self) -> None:
        """Let go of files and memory; nothing can be read afterwards."""
        self._tensors.clear()
        self._drawn = None

    def replaced(self, name: str, tensor: Tensor) -> StoredWeights:
        """The same with another tensor for a parameter."""
        return StoredWeights({**self._tensors, name: (tensor,)}, self._drawn)


class OnDemand(Mapping[str, Tensor]):
    """Tensors by name, each made anew whenever it is read, so that no more than one needs be in memory."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own would make it

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
