"""How a configuration file is read by a table that decides about every key (deepspeed_keys.py)."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deltalm_ds.errors import UserError

GradientPath = Literal["stage 0", "stage 1 in bf16", "stages 1 and 2", "stage 3"]
"""DeepSpeed's four implementations; each reads its own part of zero_optimization.

Stage 1 in bf16 with fp32 accumulation has one of its own, unless the optimizer is offloaded.
"""


@dataclass(frozen=True)
class Values:
    """The values a key may have."""

    described: str
    """As in "must be …"."""
    admit: Callable[[Any], bool]


@dataclass(frozen=True)
class Passed:
    """DeepSpeed honours the key: it is given as written."""

    values: Values
    paths: tuple[GradientPath, ...] = ("stage 0", "stage 1 in bf16", "stages 1 and 2", "stage 3")
    """Where it has an effect; elsewhere it is refused."""


@dataclass(frozen=True)
class Resolved:
    """Read by deepspeed_config.py, which writes what DeepSpeed is given."""

    values: Values
    auto: bool = False
    """Whether "auto" is a value."""


@dataclass(frozen=True)
class Refused:
    """Not for this trainer."""

    because: str
    """Why, and what to do."""
    unless: object = "off"
    """The value that asks for nothing and so is accepted, and left out, as null always is; "off" stands for
    false and {"enabled": false}."""

    def asks_for_nothing(self, value: Any) -> bool:
        """Whether a file with this value can be followed without the key."""
        if self.unless == "off" and isinstance(value, dict):
            return value.get("enabled") is False
        unless = False if self.unless == "off" else self.unless
        return value is None or (value == unless and isinstance(value, bool) == isinstance(unless, bool))


@dataclass(frozen=True)
class Section:
    """An object with keys of its own."""

    keys: Mapping[str, Decision]
    paths: tuple[GradientPath, ...] = ("stage 0", "stage 1 in bf16", "stages 1 and 2", "stage 3")


Decision = Passed | Resolved | Refused | Section


def is_number(value: Any) -> bool:
    """Whether `value` is a number below 2^63; JSON knows no limit, and reads 1e999 as infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number; files write large ones as 5e8, which JSON reads as a float."""
    return is_number(value) and value == int(value)


def one_of(*choices: str) -> Values:
    """The values `choices`."""
    return Values("one of " + ", ".join(f'"{choice}"' for choice in choices), lambda value: value in choices)


BOOLEAN = Values("true or false", lambda value: isinstance(value, bool))
COUNT = Values("a whole number, 0 or more", lambda value: is_whole(value) and value >= 0)
POSITIVE = Values("a whole number, 1 or more", lambda value: is_whole(value) and value >= 1)
NUMBER = Values("a number, 0 or more", lambda value: is_number(value) and value >= 0)
NAMES = Values(
    "a list of names", lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value)
)
STAGE = Values("0, 1, 2 or 3", lambda value: is_whole(value) and 0 <= value <= 3)
DTYPE = one_of("fp32", "bf16", "fp16")


def read_object(path: Path, keys: Mapping[str, Decision]) -> dict[str, Any]:
    """What the JSON file at `path` says, by `keys`: what is refused or asks for nothing is not in the result.

    Raises UserError, naming the file and the place in it, for anything but an object of known keys with
    possible values. "auto" is kept where it is a value.
    """
    return _admit(path, "", _load(path), keys, keys)


def _load(path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(
                    f'{path}: the key "{key}" is written twice in one object: take one of them out'
                )
        return dict(pairs)

    def not_a_number(name: str) -> Any:
        raise UserError(f"{path}: {name} is not a JSON number")

    try:
        content = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=unique, parse_constant=not_a_number
        )
    except OSError as error:
        raise UserError(f"{path}: the DeepSpeed configuration cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, objects in objects in …
        raise UserError(f"{path}: not a DeepSpeed configuration: {error}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: a DeepSpeed configuration is an object, {{…}}, not {json.dumps(content)[:40]}"
        )
    return content


def _admit(
    path: Path,
    place: str,
    written: Mapping[str, Any],
    keys: Mapping[str, Decision],
    everywhere: Mapping[str, Decision],
) -> dict[str, Any]:
    admitted: dict[str, Any] = {}
    for key, value in written.items():
        name = f"{place}{key}"
        decision = keys.get(key)
        if decision is None:
            hint = _suggestion(key, keys, everywhere)
            raise UserError(f"{path}: {name} is not a key of DeepSpeed's configuration{hint}")
        if isinstance(decision, Refused):
            if not decision.asks_for_nothing(value):
                raise UserError(f"{path}: {name} is refused: {decision.because}")
        elif isinstance(decision, Resolved) and decision.auto and value == "auto":
            admitted[key] = value
        elif value == "auto":
            raise UserError(f'{path}: {name} cannot be "auto": write a value, or take it out')
        elif isinstance(decision, Section):
            if value is None:
                continue
            if not isinstance(value, dict):
                raise UserError(f"{path}: {name} must be an object, not {json.dumps(value)}")
            admitted[key] = _admit(path, f"{name}.", value, decision.keys, everywhere)
        elif not decision.values.admit(value):
            raise UserError(f"{path}: {name} must be {decision.values.described}, not {json.dumps(value)}")
        else:
            admitted[key] = int(value) if isinstance(value, float) and is_whole(value) else value
    return admitted


def _suggestion(key: str, keys: Mapping[str, Decision], everywhere: Mapping[str, Decision]) -> str:
    """What the writer of the unknown `key` among `keys` may have meant, or where it belongs; else empty."""
    near = difflib.get_close_matches(key, list(keys), n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    places = sorted(_places(key, everywhere, ""))
    return f"; its place is {places[0]}" if places else ""


def _places(key: str, keys: Mapping[str, Decision], prefix: str) -> list[str]:
    found = [prefix + key] if key in keys else []
    for name, decision in keys.items():
        if isinstance(decision, Section):
            found += _places(key, decision.keys, f"{prefix}{name}.")
    return found
