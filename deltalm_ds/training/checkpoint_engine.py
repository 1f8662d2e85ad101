"""The only way DeepSpeed reads and writes checkpoint files here: copies in host memory, restricted loading.

DeepSpeed hands every object that it would save to `engine.checkpoint_engine`, and gets from it most of what
it loads. Ours keeps the objects in memory, so that snapshot and write are two steps, and unpickles nothing
but tensors, plain values and the few classes in `SAFE_CLASSES`.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.utils.tensor_fragment import fragment_address

from deltalm_ds.errors import UserError
from deltalm_ds.training.checkpoint_folder import FileRecord

SAFE_CLASSES = [DynamicLossScaler, LossScaler, fragment_address]
"""What DeepSpeed's optimizer states hold beside tensors and plain values; building them runs no code."""

_FORCE_RESTRICTED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


class SnapshotEngine(CheckpointEngine):
    """A DeepSpeed checkpoint engine that collects host copies in place of writing, and loads restricted."""

    def __init__(self) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.collected: dict[str, Any] = {}

    def create(self, info: CheckpointCommitInfo) -> None:
        self.collected = {}

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing is written, so no folder is made."""

    def save(self, state_dict: Any, path: str) -> None:
        self.collected[Path(path).name] = copy_to_host(state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        with restricted_loading():
            return torch.load(path, map_location=map_location, weights_only=True)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        return True


@contextlib.contextmanager
def restricted_loading() -> Iterator[None]:
    """Every torch.load in this process is weights_only within the block, whatever its caller says.

    DeepSpeed's universal checkpoints call torch.load(weights_only=False) in many places; torch lets the
    environment overrule that.
    """
    before = os.environ.get(_FORCE_RESTRICTED)
    os.environ[_FORCE_RESTRICTED] = "1"
    try:
        # Leaving safe_globals forgets its classes: a nested block must not take the outer one's away.
        known = torch.serialization.get_safe_globals()
        with torch.serialization.safe_globals([safe for safe in SAFE_CLASSES if safe not in known]):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE_RESTRICTED]
        else:
            os.environ[_FORCE_RESTRICTED] = before


@contextlib.contextmanager
def refusing_code(folder: Path) -> Iterator[None]:
    """Turn the refusal of restricted loading into a UserError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} is refused, for loading it could run code: {reason}") from error


def copy_to_host(value: Any) -> Any:
    """A deep copy with every tensor in host memory, detached, and no larger than its own elements.

    Tensors that are the same view of the same storage (tied weights) stay one tensor.

    Raises TypeError for anything that restricted loading would refuse to read back.
    """
    return _copy(value, {})


def _copy(value: Any, copies: dict[Any, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        storage = (value.device, value.untyped_storage().data_ptr(), value.storage_offset())
        key = (*storage, value.shape, value.stride(), value.dtype)
        if value.numel() == 0 or key not in copies:
            copies[key] = value.detach().to("cpu", copy=True).contiguous()
        return copies[key]
    if isinstance(value, dict):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((_copy(key, copies), _copy(item, copies)) for key, item in value.items())
    if type(value) in (list, tuple, set):
        return type(value)(_copy(item, copies) for item in value)
    if isinstance(value, int) and isinstance(value, Enum):
        return int(value)  # some Pythons pickle a member as a call of getattr, which loading refuses
    if type(value) in SAFE_CLASSES:
        return copy.deepcopy(value)
    if type(value) in _PLAIN:
        return value
    raise TypeError(
        f"a checkpoint cannot hold {type(value).__module__}.{type(value).__qualname__}: {value!r}"
    )


def num_tensor_bytes(value: Any) -> int:
    """Bytes of the distinct tensors in what `copy_to_host` returned."""
    sizes: dict[int, int] = {}
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            sizes[id(item)] = item.numel() * item.element_size()
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
    return sum(sizes.values())


def write_synced(value: Any, path: Path) -> FileRecord:
    """Write `value` with torch.save, hashed on the way, and return once it is on the disk."""
    with path.open("wb") as file:
        hashing = _HashingFile(file)
        try:
            torch.save(value, hashing)  # type: ignore[arg-type]
        except RuntimeError as error:
            # torch closes its archive after a failed write, and this fails with an error of its own.
            raise hashing.failure or error from None
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(hashing.size, hashing.digest.hexdigest())


class _HashingFile:
    """Passes sequential writes on and keeps their hash."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()
