"""Writing .safetensors files tensor by tensor, for models that need not fit into memory.

The format (https://huggingface.co/docs/safetensors, "Format"): 8 bytes with the length of the header, the
header, which is JSON and may end in spaces, and the tensors' bytes without a gap. The library writes only
what is whole in memory; so here the header's place is kept free and filled in last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalm_ds.files import atomic_writer

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ENTRY_BYTES = 128  # of a tensor's entry without its name, for up to four axes


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a .safetensors file aside, sync and rename it, with no more than one tensor in memory at a time.

    Each tensor is read once, in the order of the names; all have one of the dtypes fp32, bf16 and fp16.
    OSError if the file cannot be written; then what was there stays.
    """
    # `format` is what other readers of safetensors look for.
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    room = len(_encoded(header)) + sum(len(_encoded(name)) + _ENTRY_BYTES for name in tensors)
    room += -room % 8
    with atomic_writer(path) as file:
        file.seek(8 + room)
        offset, dtypes = 0, set()
        for name in tensors:
            tensor = tensors[name].detach().cpu().contiguous()
            file.write(tensor.flatten().view(torch.uint8).numpy().data)
            offsets = [offset, offset := offset + tensor.nbytes]
            dtypes.add(tensor.dtype)
            shape = list(tensor.shape)
            header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": shape, "data_offsets": offsets}
        assert len(dtypes) <= 1, dtypes  # a tensor behind one of narrower numbers might not be aligned
        encoded = _encoded(header)
        assert len(encoded) <= room, (len(encoded), room)
        file.seek(0)
        file.write(room.to_bytes(8, "little") + encoded.ljust(room))


def _encoded(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
