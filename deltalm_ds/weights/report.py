"""What went where when a model was filled from a checkpoint, compact enough to print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_NUMBERED = re.compile(r"(?P<before>.*?)\.(?P<index>\d+)\.(?P<part>[^.]+)\..*")


@dataclass(frozen=True)
class Report:
    """The whole map from a checkpoint to a model; `str()` groups it by layer."""

    path: Path
    """The checkpoint."""
    layout: str
    """What was recognised."""
    origins: Mapping[str, str]
    """Our parameter → the checkpoint's tensor that fills it."""
    left_out: Mapping[str, str]
    """Tensor of the checkpoint that fills nothing → why."""
    remarks: tuple[str, ...]
    """New rows, layers without a place, values that the checkpoint does not say."""

    def __str__(self) -> str:
        """A line for each group of parameters, `ours <- theirs`, then what was left out and the remarks."""
        lines = _grouped(self.origins)
        column = max(len(ours) for ours, _ in lines)
        return "\n".join(
            [
                f"weights from {self.path} ({self.layout})",
                *(f"  {ours:{column}} <- {theirs}" for ours, theirs in lines),
                *(f"  left out: {names}: {reason}" for names, reason in _by_reason(self.left_out)),
                *(f"  {remark}" for remark in self.remarks),
            ]
        )


def _grouped(origins: Mapping[str, str]) -> list[tuple[str, str]]:
    """`origins` with one line for each module outside the layers and each kind of sub-layer inside."""
    groups: dict[tuple[str, str], tuple[dict[int, None], dict[str, None]]] = {}
    for ours, theirs in origins.items():
        found = _NUMBERED.fullmatch(ours)
        key = (found["before"], found["part"]) if found else (ours.rsplit(".", 1)[0], "")
        indices, sources = groups.setdefault(key, ({}, {}))
        if found:
            indices[int(found["index"])] = None
        sources[theirs] = None
    return [
        (f"{before}.{_numbers(indices)}.{part}" if part else before, _source_text(sources))
        for (before, part), (indices, sources) in groups.items()
    ]


def _source_text(names: Iterable[str]) -> str:
    """Tensor names with the layers' numbers and parts drawn together."""
    indices: dict[str, dict[int, None]] = {}
    parts: dict[str, dict[str, None]] = {}
    plain: dict[str, None] = {}
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found:
            indices.setdefault(found["before"], {})[int(found["index"])] = None
            parts.setdefault(found["before"], {})[found["part"]] = None
        else:
            plain[name.rsplit(".", 1)[0]] = None
    layered = [f"{before}.{_numbers(indices[before])}.{_alternatives(parts[before])}" for before in indices]
    return ", ".join([*plain, *layered])


def _by_reason(left_out: Mapping[str, str]) -> list[tuple[str, str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(name)
    return [(", ".join(names), reason) for reason, names in reasons.items()]


def _numbers(indices: Iterable[int]) -> str:
    """`3`, or `{0..11}`, or `{0, 2, .., 10}`, or every number."""
    numbers = sorted(indices)
    if len(numbers) == 1:
        return str(numbers[0])
    step = numbers[1] - numbers[0]
    if len(numbers) > 3 and numbers == list(range(numbers[0], numbers[-1] + 1, step)) and step > 1:
        return f"{{{numbers[0]}, {numbers[1]}, .., {numbers[-1]}}}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{{{numbers[0]}..{numbers[-1]}}}"
    return f"{{{', '.join(map(str, numbers))}}}"


def _alternatives(parts: Iterable[str]) -> str:
    names = list(parts)
    return names[0] if len(names) == 1 else f"{{{', '.join(names)}}}"
