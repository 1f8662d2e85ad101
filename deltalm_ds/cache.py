"""The user's folder for what is compiled on first use."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder, made if need be and readable by the user alone.

    Raises OSError if it cannot be made, RuntimeError if the user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "deltalm-ds"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
