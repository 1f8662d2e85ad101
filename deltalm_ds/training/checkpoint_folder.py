"""One checkpoint on disk: its names, what is written about it, and whether it is whole."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deltalm_ds.errors import UserError
from deltalm_ds.files import sha256_of, write_text_atomically

CHECKPOINTS = "checkpoints"
"""Folder of a run's output with its checkpoints."""
MODEL = "model"
"""Folder of a run's output with the model that it trained."""
START = "start"
"""Folder of a fine-tuning run's output with the model that it began with."""

LATEST = "latest"
MANIFEST = "manifest.json"
RUN = "run.json"
CONFIG = "config.json"
UNFINISHED = ".tmp"
UNIVERSAL = ".universal"
UNDONE = ".undone"
"""Ending of a checkpoint that the run has gone back behind."""

Say = Callable[[str], None]

_MANIFEST_FORMAT = "deltalm-ds checkpoint"
_MANIFEST_VERSION = 1
_HASHING_THREADS = 8
_SHOWN_DIFFERENCES = 8
_SHOWN_CHARACTERS = 60
_STEP_FOLDER = re.compile(r"step_(\d+)")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run must know to go on, beside the tensors that DeepSpeed keeps."""

    step: int
    """Optimizer steps done, skipped ones included."""

    next_position: int
    """Global sample position of the first sample of the next step."""

    world_size: int
    """Number of processes that wrote the checkpoint."""

    zero_stage: int
    """ZeRO stage it was written at, 0 to 3."""

    dtype: str
    """Type of the weights in training: fp32, bf16 or fp16."""

    fingerprint: Mapping[str, Any]
    """What the order of samples depends on: data, tokenizer, objectives, mixture, seed."""

    model_config: Mapping[str, Any]
    """The model's configuration, in config.json."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings of the run that wrote it, for the reader."""

    monitoring: Mapping[str, Any] = field(default_factory=dict)
    """Sums and counts with which the records go on."""

    skipped_samples: tuple[tuple[int, int], ...] = ()
    """Ranges of positions, first and end, that no step may touch."""

    @property
    def name(self) -> str:
        """Name of the folder, which is DeepSpeed's tag."""
        return f"step_{self.step}"


@dataclass(frozen=True)
class FileRecord:
    """One line of the manifest: bytes and SHA-256 in hexadecimal."""

    size: int
    sha256: str


def step_folders(directory: Path) -> list[Path]:
    """The folders `step_N` in `directory`, newest (largest N) first."""
    found = [(int(match[1]), path) for path, match in _matches(directory) if path.is_dir()]
    return [path for _, path in sorted(found, reverse=True)]


def unfinished_folders(directory: Path) -> list[Path]:
    """What an interrupted save or conversion has left in `directory`."""
    return sorted(path for path in directory.glob(f"step_*{UNFINISHED}") if path.is_dir())


def write_run_state(folder: Path, state: RunState) -> dict[str, FileRecord]:
    """Write run.json and config.json into `folder` and return their lines of the manifest."""
    described = asdict(state)
    config = described.pop("model_config")
    for name, content in ((RUN, described), (CONFIG, config)):
        write_text_atomically(folder / name, json.dumps(content, indent=2) + "\n")
    return record_files(folder, (RUN, CONFIG))


def read_run_state(folder: Path) -> RunState:
    """The state written by `write_run_state`.

    Raises OSError, ValueError or TypeError for files that are not what that wrote.
    """
    described = json.loads((folder / RUN).read_text(encoding="utf-8"))
    described["model_config"] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    ranges = tuple((int(first), int(end)) for first, end in described.pop("skipped_samples", ()))
    return RunState(**described, skipped_samples=ranges)


def write_manifest(folder: Path, records: Mapping[str, FileRecord]) -> None:
    """Write the manifest: `records` by file name relative to `folder`."""
    content = {
        "format": _MANIFEST_FORMAT,
        "version": _MANIFEST_VERSION,
        "files": {name: asdict(records[name]) for name in sorted(records)},
    }
    write_text_atomically(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def record_files(folder: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """Size and hash of files that are already on disk."""
    names = list(names)
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        hashes = pool.map(sha256_of, [folder / name for name in names])
        return {
            name: FileRecord((folder / name).stat().st_size, digest)
            for name, digest in zip(names, hashes, strict=True)
        }


def fault_of(folder: Path) -> str | None:
    """Why the checkpoint in `folder` is not whole, in a few words, or None.

    Names and sizes are compared with the manifest first, then all hashes.
    """
    try:
        recorded = _read_manifest(folder)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    for name, record in recorded.items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if size != record.size:
            return f"{name} has {size:,} bytes, manifest says {record.size:,}"
    try:
        found = record_files(folder, recorded)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    for name, record in recorded.items():
        if found[name].sha256 != record.sha256:
            return f"{name} differs from its hash in the manifest"
    return None


def newest_whole(directory: Path, say: Say, undone: Sequence[Path] = ()) -> tuple[Path, tuple[str, ...]]:
    """The newest whole checkpoint and the names of newer ones that are not, with a word for each of these.

    Those in `undone` are not looked at.
    """
    folders = [folder for folder in step_folders(directory) if folder not in undone]
    _mention_latest(directory, folders, say)
    passed_over: list[str] = []
    for folder in folders:
        fault = fault_of(folder)
        if fault is None:
            return folder, tuple(passed_over)
        say(f"{folder.name} passed over: {fault}")
        passed_over.append(folder.name)
    found = f"of {', '.join(passed_over)} none is whole" if passed_over else "there is none"
    if undone:
        found += f" from before the samples to be skipped ({undone[-1].name} is later)"
    raise UserError(
        f"no checkpoint to resume from in {directory}: {found}; start a new run in another --output"
    )


def is_no_space(error: BaseException) -> bool:
    """Whether the disk or the user's quota is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """The fields in which two JSON-like dicts differ ("width is 256 there, 512 here, ..."), or nothing."""
    there, here = (_flat(json.loads(json.dumps(dict(side)))) for side in (saved, current))
    differing = [
        f"{name} is {_short(there.get(name))} there, {_short(here.get(name))} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if len(differing) > _SHOWN_DIFFERENCES:
        differing[_SHOWN_DIFFERENCES:] = [f"and {len(differing) - _SHOWN_DIFFERENCES} more"]
    return ", ".join(differing)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    if not isinstance(value, dict):
        return {name: value}
    prefix = f"{name}." if name else ""
    return {path: leaf for key, item in value.items() for path, leaf in _flat(item, prefix + key).items()}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _mention_latest(directory: Path, folders: list[Path], say: Say) -> None:
    if not folders:
        return
    try:
        named = (directory / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        say(f"{LATEST} is missing in {directory}; looking through the folders")
        return
    if named not in [folder.name for folder in folders]:
        say(f"{LATEST} names {named!r}, which is not in {directory}; looking through the folders")


def _matches(directory: Path) -> list[tuple[Path, re.Match[str]]]:
    if not directory.is_dir():
        return []
    named = ((path, _STEP_FOLDER.fullmatch(path.name)) for path in directory.iterdir())
    return [(path, match) for path, match in named if match]


def _read_manifest(folder: Path) -> dict[str, FileRecord]:
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if (content["format"], content["version"]) != (_MANIFEST_FORMAT, _MANIFEST_VERSION):
        raise ValueError(f"not version {_MANIFEST_VERSION} of the format {_MANIFEST_FORMAT!r}")
    records = {
        name: FileRecord(int(record["size"]), record["sha256"]) for name, record in content["files"].items()
    }
    if RUN not in records:
        raise ValueError(f"{RUN} is not in it")
    return records
