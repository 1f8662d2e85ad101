"""The weights of all processes on the first one, without its memory ever having them whole."""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from deltalm_ds.errors import UserError

_ELEMENTS_AT_ONCE = 1 << 24
"""Gathered together, 64 MiB."""


class GatheredWeights(Mapping[str, Tensor]):
    """fp32 tensors by name, in a file that has no name and goes with this object; read whenever asked for."""

    def __init__(self, folder: Path, shapes: Mapping[str, Sequence[int]]) -> None:
        """Room on the disk of `folder` for tensors of these shapes."""
        self._folder = folder
        self._shapes = dict(shapes)
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        self._offsets = dict(zip(self._shapes, itertools.accumulate(sizes, initial=0), strict=False))
        with self._on_disk():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def put(self, name: str, start: int, values: Tensor) -> None:
        """Write elements of the flattened tensor, from `start` on; UserError where the disk is full."""
        with self._on_disk():
            self._file.seek(4 * (self._offsets[name] + start))
            self._file.write(values.detach().float().cpu().contiguous().numpy().data)

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.empty(*self._shapes[name])
        with self._on_disk():
            self._file.seek(4 * self._offsets[name])
            self._file.readinto(tensor.view(-1).numpy().data)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._shapes  # Mapping's own would read it

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._folder}: cannot put the model's weights there on their way into its folder "
                f"({error}); free some space"
            ) from error


def gather_shares(share: Tensor, num_elements: int) -> Iterator[tuple[int, Tensor]]:
    """On rank 0 the pieces of a flattened parameter, each with its place, and nothing on the others.

    `share` is this process's part of ZeRO-3, of the same size on all and in the order of the ranks, with
    padding behind the parameter's `num_elements`. Called by all ranks together, which must exhaust it.
    """
    rank, world_size, size = dist.get_rank(), dist.get_world_size(), len(share)
    step = max(1, _ELEMENTS_AT_ONCE // world_size)
    for start in range(0, size, step):
        piece = share[start : start + step].contiguous()
        pieces = [torch.empty_like(piece) for _ in range(world_size)] if rank == 0 else None
        dist.gather(piece, pieces, dst=0)
        for owner, found in enumerate(pieces or ()):
            place = owner * size + start
            if place < num_elements:
                yield place, found[: num_elements - place]
