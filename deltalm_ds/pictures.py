"""What all pictures share: the same numbers give the same bytes, and a file is whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from deltalm_ds.files import write_bytes_atomically

STYLE: dict[str, Any] = {
    "svg.hashsalt": "deltalm-ds",  # else ids are random
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,
    "font.size": 8,
    "axes.spines.top": False,
    "axes.axisbelow": True,
}
"""Of matplotlib, on top of its defaults."""


def save_picture(figure: Figure, path: Path, **options: Any) -> None:
    """Write `figure` to `path`, in the format that it ends with; `options` are those of savefig."""
    content = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(content, format=path.suffix[1:], metadata=metadata, **options)
    write_bytes_atomically(path, content.getvalue())
