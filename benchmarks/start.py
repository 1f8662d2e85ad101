"""How long the data take to be ready and what they take in memory, for corpora of growing size.

    python benchmarks/start.py

Each corpus has 100 sources, 1 to 10,000 in size, whose files are holes (`sparse_corpus.py`): as large as real
ones for whoever opens them. A process of its own opens the folder, makes the reader of a run with a cap on
repeats and a change of the mixture, and reads the 64 samples at the run's beginning, or in its middle, as a
resumed run does. The imports are not timed. Medians of five processes; writes results/start.md.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.schedule import RunLength
from deltalm_ds.data.settings import DataSettings

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "start.md"
SAMPLES = (10**6, 10**8, 10**10)
"""Items of all sources together."""
NUM_SOURCES = 100
WINDOW = 512
BATCH_SIZE = 2_048
MAX_EPOCHS = 20.0
ROUNDS = 5
READ = 64


def main() -> None:
    """Measure each size and write the table; or, given a folder and more, measure once and print JSON."""
    if len(sys.argv) > 1:
        folder, num_samples, where = sys.argv[1:]
        print(json.dumps(measure(Path(folder), int(num_samples), where)))
        return
    from sparse_corpus import write_sparse_corpus

    rows = []
    for num_samples in SAMPLES:
        with tempfile.TemporaryDirectory() as work:
            folder = write_sparse_corpus(Path(work) / "corpus", num_tokens(num_samples))
            index_bytes = sum(file.stat().st_size for file in folder.rglob("*.idx"))
            token_bytes = sum(file.stat().st_size for file in folder.rglob("*.bin"))
            for where in ("beginning", "middle"):
                rounds = [measured_apart(folder, num_samples, where) for _ in range(ROUNDS)]
                middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
                rows.append((num_samples, token_bytes, index_bytes, where, middle))
                print(rows[-1], flush=True)
    RESULT.write_text(report(rows), encoding="utf-8")
    print(RESULT)


def num_tokens(num_samples: int) -> list[int]:
    """Tokens of each source, in proportion 1 to 10,000."""
    weights = 10_000 ** (np.arange(NUM_SOURCES) / (NUM_SOURCES - 1))
    return (np.ceil(weights / weights.sum() * num_samples).astype(np.int64) * WINDOW).tolist()


def measured_apart(folder: Path, num_samples: int, where: str) -> dict[str, float]:
    """`measure` in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder), str(num_samples), where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(folder: Path, num_samples: int, where: str) -> dict[str, float]:
    """Seconds until reader and samples are there, and the megabytes that came with them."""
    before = memory()
    start = time.perf_counter()
    length = RunLength(max(num_samples * 2 // BATCH_SIZE, 200), BATCH_SIZE)
    change = f"{length.steps // 2}:language-exponent=0.7"
    settings = DataSettings(mixture_changes=(change,), max_epochs=MAX_EPOCHS)
    reader = SampleReader(Corpus.open(folder), settings, 1, length)
    opened = time.perf_counter()
    first = 0 if where == "beginning" else length.num_samples // 2
    reader.samples(range(first, first + READ))
    read = time.perf_counter()
    after = memory()
    return {
        "ready": opened - start,
        "read": read - opened,
        "own": after["RssAnon"] - before["RssAnon"],
        "mapped": after["RssFile"] - before["RssFile"],
    }


def memory() -> dict[str, float]:
    """Megabytes of this process that are resident: its own, and pages of files."""
    rows = (line.split() for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return {row[0][:-1]: int(row[1]) * 1024 / 1e6 for row in rows if row[0] in ("RssAnon:", "RssFile:")}


def report(rows: list[tuple[int, int, int, str, dict[str, Any]]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Start of the data",
        "",
        f"`python benchmarks/start.py` on {processor()}, Python {platform.python_version()}, NumPy "
        f"{np.__version__}; medians of {ROUNDS} processes, imports not counted. 100 sources in proportion 1 "
        f"to 10,000, at most {MAX_EPOCHS:g} epochs, one change of the mixture.",
        "",
        f"| samples an epoch | .bin | .idx | first {READ} samples at the | reader ready | samples read "
        "| own memory | pages of files |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for num_samples, token_bytes, index_bytes, where, result in rows:
        lines.append(
            f"| 10^{len(str(num_samples)) - 1} | {token_bytes / 1e9:,.1f} GB | {index_bytes / 1e9:,.2f} GB "
            f"| {where} | {result['ready']:.3f} s | {result['read']:.3f} s | {result['own']:.1f} MB "
            f"| {result['mapped']:.1f} MB |"
        )
    lines += [
        "",
        "The files are holes, so no text was read from a disk: a real start waits for its first pages too.",
        "A run also imports torch and DeepSpeed, and hashes data of up to 256 MiB.",
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The processor's name, as Linux knows it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
