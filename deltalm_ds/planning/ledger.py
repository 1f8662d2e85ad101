"""Memory as a ledger: what is held, by part, and the moment when it was most."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal, get_args

Part = Literal["weights", "gradients", "optimizer", "activations", "logits", "buckets", "process"]
PARTS: tuple[Part, ...] = get_args(Part)


class Ledger:
    """Bytes that a process holds in the course of a step."""

    def __init__(self) -> None:
        self._held = dict.fromkeys(PARTS, 0.0)
        self._total = 0.0
        self.peak: Mapping[Part, float] = dict(self._held)
        """Each part at the moment when all together were most."""
        self.peak_total = 0.0
        self.peak_phase = ""
        """What was going on then."""
        self.phase = ""
        """What is going on; written by whoever keeps the ledger."""

    def hold(self, part: Part, num_bytes: float) -> None:
        """Take up `num_bytes` more."""
        self._held[part] += num_bytes
        self._total += num_bytes
        if self._total > self.peak_total:
            self.peak, self.peak_total, self.peak_phase = dict(self._held), self._total, self.phase

    def release(self, part: Part, num_bytes: float) -> None:
        """Give back `num_bytes` that are held."""
        self._held[part] -= num_bytes
        self._total -= num_bytes
        assert self._held[part] > -1, f"{part} released twice"  # bytes are floats here

    @contextlib.contextmanager
    def during(self, part: Part, num_bytes: float) -> Iterator[None]:
        """Hold `num_bytes` for the block."""
        self.hold(part, num_bytes)
        yield
        self.release(part, num_bytes)

    def touch(self, part: Part, num_bytes: float) -> None:
        """Hold `num_bytes` for a moment."""
        with self.during(part, num_bytes):
            pass

    def held(self, part: Part) -> float:
        """What is held of a part now."""
        return self._held[part]
