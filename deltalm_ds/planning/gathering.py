"""Which parameters ZeRO-3 gathers and lets go, in the course of forward and backward.

A replay of DeepSpeed 0.19's partitioned_param_coordinator.py, as it is once it knows the order of modules: a
module's parameters are fetched before it runs, and those of the next modules ahead of time, up to the
prefetch bucket and the most that may be live; they are let go behind it unless they are small, or used again
soon.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from deltalm_ds.model import DeltaLMConfig
from deltalm_ds.planning.shapes import ModelShape, Parameter, Unit, shape_of
from deltalm_ds.planning.zero import ZeroSettings

Pass = Literal["forward", "backward", "recomputation"]


@dataclass(frozen=True)
class Visit:
    """A module that runs: forward, its backward pass, or forward again within that."""

    unit: Unit | None
    """None: a module without parameters of its own, for which prefetching goes on all the same."""
    passing: Pass
    opens: bool = True
    """Whether it begins here, and parameters are fetched."""
    closes: bool = True
    """Whether it ends here, and they may go; its work is done then."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The module's own."""
        return self.unit.parameters if self.unit else ()

    @property
    def stays(self) -> bool:
        """Whether its parameters stay until the end of the backward pass: DeepSpeed lets go of them when the
        gradient of the module's input is known, and a look-up's input, ids, has none."""
        return self.passing == "backward" and self.unit is not None and self.unit.kind in LOOK_UPS


LOOK_UPS = ("table", "positions")


def visits_of(shape: ModelShape, every: int) -> list[Visit]:
    """A micro-batch's forward and backward pass; every n-th layer is recomputed.

    The table's backward pass comes last: autograd takes the newest node first, though the table's gradient as
    the output projection has long been there.
    """
    table, *others = shape.units
    visits = [Visit(None, "forward"), Visit(table, "forward")]
    layers = [(key, list(group)) for key, group in itertools.groupby(others, _layer_of)]
    for _, group in itertools.groupby(layers, lambda layer: layer[0][0]):
        visits.append(Visit(None, "forward"))
        for (_, number), units in group:
            visits += [Visit(None, "forward")] * (number is not None)
            visits += [Visit(unit, "forward") for unit in units]
    visits.append(Visit(None, "backward"))
    for _, group in itertools.groupby(reversed(layers), lambda layer: layer[0][0]):
        visits.append(Visit(None, "backward"))
        for (_, number), units in group:
            *earlier, last = units
            visits += [Visit(None, "backward")] * (number is not None)
            if number is not None and every and number % every == 0:
                # The last module wants what it kept, for which the layer runs again, up to its midst.
                visits.append(Visit(last, "backward", closes=False))
                visits += [Visit(unit, "recomputation") for unit in (None, *earlier)]
                visits.append(Visit(last, "recomputation", closes=False))
                visits.append(Visit(last, "backward", opens=False))
            else:
                visits.append(Visit(last, "backward"))
            visits += [Visit(unit, "backward") for unit in reversed(earlier)]
    return [*visits, Visit(table, "backward"), Visit(table, "backward")]


def _layer_of(unit: Unit) -> tuple[str, int | None]:
    return unit.side, unit.layer


@dataclass(frozen=True)
class Change:
    """Something that happens to gathered parameters."""

    what: Literal["gather", "unpack", "drop", "release"]
    """gather: into a flat buffer; unpack: each parameter out of it; drop: the buffer goes; release: the
    parameters go. A single parameter stays in the buffer."""
    parameters: tuple[Parameter, ...]


@dataclass
class _Handle:
    parameters: tuple[Parameter, ...]
    waiting: set[int]
    is_unpacked: bool = False


@dataclass(frozen=True)
class Scene:
    """A visit, and what happens to gathered parameters before and after it."""

    visit: Visit
    before: tuple[Change, ...]
    after: tuple[Change, ...]


@lru_cache(None)
def replay(
    config: DeltaLMConfig, zero: ZeroSettings, every: int
) -> tuple[tuple[Scene, ...], tuple[Change, ...]]:
    """The scenes of a micro-batch, and what happens after its backward pass."""
    visits = visits_of(shape_of(config), every)
    coordinator = _Coordinator(shape_of(config), zero, visits)
    scenes = tuple(
        Scene(visit, tuple(coordinator.open(visit)), tuple(coordinator.close(visit))) for visit in visits
    )
    return scenes, tuple(coordinator.end())


def persistent(shape: ModelShape, zero: ZeroSettings) -> tuple[Parameter, ...]:
    """The parameters that are gathered once a step and kept."""
    return tuple(parameter for parameter in shape.parameters if parameter.size <= zero.persistent_size)


@dataclass
class _Coordinator:
    """DeepSpeed's; `open` and `close` surround each visit, in the order of `visits`."""

    shape: ModelShape
    zero: ZeroSettings
    visits: Sequence[Visit]
    _available: set[int] = field(default_factory=set)
    _handles: dict[int, _Handle] = field(default_factory=dict)
    _active: dict[int, set[int]] = field(default_factory=dict)
    _num_live: int = 0
    _step: int = 0
    _last_fetched_for: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._fetches = [visit for visit in self.visits if visit.opens]
        self._queue = deque(
            (parameter, step)
            for step, visit in enumerate(self._fetches)
            for parameter in sorted(visit.parameters, key=lambda parameter: parameter.number)
        )
        self._available = {parameter.number for parameter in persistent(self.shape, self.zero)}

    def open(self, visit: Visit) -> Iterator[Change]:
        """Before a module runs."""
        if not visit.opens:
            return
        needed = visit.parameters
        yield from self._gather(p for p in needed if p.number not in self._available)
        for parameter in needed:
            self._active.setdefault(parameter.number, set()).add(id(visit.unit))
            if parameter.number in self._handles:
                yield from self._wait(parameter)
        yield from self._prefetch(needed)
        self._step += 1

    def close(self, visit: Visit) -> Iterator[Change]:
        """After it has run."""
        if visit.unit is None or visit.stays or not visit.closes:
            return
        yield from self._release(visit.unit, self._kept(visit.unit))

    def end(self) -> Iterator[Change]:
        """After the backward pass."""
        for visit in self.visits:
            if visit.unit is not None and visit.stays:
                yield from self._release(visit.unit, set())

    def _gather(self, parameters: Iterable[Parameter]) -> Iterator[Change]:
        missing = tuple(
            p for p in parameters if p.number not in self._available and p.number not in self._handles
        )
        if missing:
            handle = _Handle(missing, {parameter.number for parameter in missing})
            self._handles |= dict.fromkeys(handle.waiting, handle)
            self._num_live += sum(parameter.size for parameter in missing)
            yield Change("gather", missing)

    def _wait(self, parameter: Parameter) -> Iterator[Change]:
        handle = self._handles.pop(parameter.number)
        if not handle.is_unpacked:
            handle.is_unpacked = True
            self._available |= {each.number for each in handle.parameters}
            yield Change("unpack", handle.parameters)
        handle.waiting.discard(parameter.number)
        if not handle.waiting:
            yield Change("drop", handle.parameters)

    def _prefetch(self, needed: Sequence[Parameter]) -> Iterator[Change]:
        unfetched = {p.number for p in needed if self._last_fetched_for.get(p.number, -1) < self._step}
        passed: set[int] = set()
        while self._queue and len(passed) < len(unfetched):
            parameter, step = self._queue.popleft()
            self._last_fetched_for[parameter.number] = step
            passed.add(parameter.number)
        most = min(self.zero.max_live - self._num_live, self.zero.prefetch_bucket)
        chosen: dict[int, Parameter] = {}
        size = 0
        while self._queue and size < most:
            parameter, step = self._queue.popleft()
            number = parameter.number
            self._last_fetched_for[number] = max(self._last_fetched_for.get(number, -1), step)
            if number not in self._available and number not in self._handles and number not in chosen:
                chosen[number] = parameter
                size += parameter.size
        yield from self._gather(chosen.values())

    def _kept(self, unit: Unit) -> set[int]:
        """Which of its parameters a module does not let go of."""
        kept = {p.number for p in unit.parameters if self._last_fetched_for.get(p.number, -1) > self._step}
        passed = 0
        for visit in self._fetches[self._step :]:
            if passed >= self.zero.max_reuse:
                break
            kept |= {parameter.number for parameter in visit.parameters}
            passed += sum(parameter.size for parameter in visit.parameters)
        return kept

    def _release(self, unit: Unit, kept: set[int]) -> Iterator[Change]:
        for parameter in unit.parameters:
            number = parameter.number
            self._active.get(number, set()).discard(id(unit))
            if number in kept or parameter.size <= self.zero.persistent_size or self._active.get(number):
                continue
            if number in self._available:
                self._available.discard(number)
                self._num_live -= parameter.size
                yield Change("release", (parameter,))
