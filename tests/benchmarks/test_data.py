"""`benchmarks/data.py` as a whole, on a small corpus."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_side_is_measured_and_judged(tmp_path: Path) -> None:
    options = ["--rounds", "2", "--consumer-steps", "5", "--documents", "200", "--results", str(tmp_path)]
    command = [sys.executable, str(ROOT / "benchmarks/data.py"), *options]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (page,) = tmp_path.iterdir()
    text = page.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 4 + 3 + 1
    assert all(float(row[1].replace(",", "")) > 0 for row in rows[1:])
    assert rows[1][0] == "| ours, T5's form"
    assert rows[1][-1].count("met") == 3
    assert text.count("1.00 |") == 1  # the fastest collator, to itself
    assert "goal: below 1%" in text
