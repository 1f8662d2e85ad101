"""Public text and figures beside the repository, for trials that are skipped where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

SHARED_DATA = Path(os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
"""Another folder of the same form by the environment."""
