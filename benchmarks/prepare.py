"""How fast `prepare` is, against SentencePiece alone and against Megatron's builder fed by plain loops.

All in one run, in turns, medians. Text is repeated, in random order, until there is enough; cleaning is off.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import tyro

from deltalm_ds.preparing.run import prepare
from deltalm_ds.preparing.settings import PrepareSettings
from deltalm_ds.tables import format_table

FOLDER = Path(__file__).resolve().parent
SHARE_OF_SENTENCEPIECE = 0.9
"""The goal: so much of the number of processes times SentencePiece's own rate on one thread."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Time `prepare` on text files, documents between blank lines, beside SentencePiece and Megatron."""

    text: tyro.conf.Positional[tuple[Path, ...]]
    """Files named by their languages, fr.txt for example."""
    megabytes: int = 300
    """Text to prepare, MB, the same of each file."""
    vocabulary_size: int = 16_000
    """Of the tokenizer that is trained first; not timed."""
    processes: int = len(os.sched_getaffinity(0))
    """Worker processes of both contenders."""
    rounds: int = 3
    """Measurements of each."""
    results: Path = FOLDER / "results"
    """Folder for prepare.md and prepare.json."""


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        text = _repeated(settings, work / "text")
        num_bytes = sum(path.stat().st_size for path in text)
        model = _tokenizer(settings, work)
        contenders = {
            "SentencePiece alone, lists of int": lambda: _sentencepiece(text, model, int),
            "SentencePiece alone, NumPy": lambda: _sentencepiece(text, model, "numpy"),
            "SentencePiece alone, NumPy, in all processes at once": lambda: _sentencepiece_at_once(
                text, model, settings.processes
            ),
            "prepare": lambda: _ours(text, model, work / "ours", settings.processes),
            "plain loops into IndexedDatasetBuilder": lambda: _megatron(
                text, model, work, settings.processes
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(settings.rounds):
            for name, measure in contenders.items():
                rates[name].append(measure())
                print(f"round {number + 1}: {name}: {rates[name][-1] / 1e6:.1f} MB/s", file=sys.stderr)
    medians = {name: statistics.median(values) / 1e6 for name, values in rates.items()}
    report = _report(settings, num_bytes, medians)
    print(report)
    settings.results.mkdir(exist_ok=True)
    (settings.results / "prepare.md").write_text(report + "\n")
    (settings.results / "prepare.json").write_text(json.dumps({"MB/s": rates}, indent=1) + "\n")


def _repeated(settings: Settings, folder: Path) -> list[Path]:
    """The text files, each repeated to its share of the wanted size."""
    folder.mkdir()
    wanted = settings.megabytes * 1_000_000 // len(settings.text)
    made = []
    for path in settings.text:
        documents = path.read_text(encoding="utf-8").split("\n\n")
        generator, chosen, size = random.Random(path.name), [], 0
        while size < wanted:
            chosen.append(generator.choice(documents))
            size += len(chosen[-1].encode())
        made.append(folder / path.name)
        made[-1].write_text("\n\n".join(chosen), encoding="utf-8")
    return made


def _tokenizer(settings: Settings, work: Path) -> Path:
    output = work / "tokenizer"
    prepare(
        PrepareSettings(inputs=settings.text, output=output, vocabulary_size=settings.vocabulary_size),
        lambda _: None,
    )
    return output / "tokenizer.model"


def _sentencepiece(text: list[Path], model: Path, return_type: object) -> float:
    """Bytes a second of encoding lines that are in memory, 5 MB of each file, on one thread."""
    lines = []
    for path in text:
        with path.open("rb") as file:
            content = file.read(5_000_000).decode("utf-8", errors="ignore")
        lines += [line for line in content.split("\n") if line]
    num_bytes = sum(len(line.encode()) for line in lines)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    start = time.perf_counter()
    pieces.encode(lines, return_type=return_type, num_threads=1)
    return num_bytes / (time.perf_counter() - start)


def _sentencepiece_at_once(text: list[Path], model: Path, processes: int) -> float:
    """The sum of the rates of so many processes, each with all cores' share of caches and memory."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return sum(pool.starmap(_sentencepiece, [(text, model, "numpy")] * processes, chunksize=1))


def _ours(text: list[Path], model: Path, output: Path, processes: int) -> float:
    """Bytes a second of the whole command but for imports: reading, encoding, shuffling, writing, hashing."""
    shutil.rmtree(output, ignore_errors=True)
    settings = PrepareSettings(inputs=tuple(text), output=output, tokenizer=model, workers=processes)
    start = time.perf_counter()
    prepare(settings, lambda _: None)
    return sum(path.stat().st_size for path in text) / (time.perf_counter() - start)


def _megatron(text: list[Path], model: Path, work: Path, processes: int) -> float:
    """Bytes a second of one process a core, whole files each, with nothing joined or shuffled at the end.

    The processes have imported everything before the time begins.
    """
    jobs = [(path, model, work / f"megatron-{path.stem}") for path in text]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(
            _build_with_megatron, [(work / "nothing", model, work / "none")] * processes, chunksize=1
        )
        start = time.perf_counter()
        pool.starmap(_build_with_megatron, jobs, chunksize=1)
        return sum(path.stat().st_size for path in text) / (time.perf_counter() - start)


def _build_with_megatron(path: Path, model: Path, prefix: Path) -> None:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    torch.set_num_threads(1)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    if not path.exists():
        return
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    document: list[int] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if stripped := line.strip():
                document += [*pieces.encode(stripped), 2]
            elif document:
                builder.add_document(torch.tensor(document), [len(document)])
                document = []
    if document:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(f"{prefix}.idx")


def _report(settings: Settings, num_bytes: int, medians: dict[str, float]) -> str:
    lists, arrays, at_once, ours, megatron = medians.values()
    goal = SHARE_OF_SENTENCEPIECE * settings.processes * lists
    rows = [("", "MB/s", "× SentencePiece, int", "× SentencePiece, NumPy")]
    rows += [
        (name, f"{rate:.1f}", f"{rate / lists:.2f}", f"{rate / arrays:.2f}") for name, rate in medians.items()
    ]
    return "\n".join(
        [
            "# Preparing",
            "",
            f"{num_bytes / 1e6:.0f} MB of text in {len(settings.text)} languages, {settings.processes} "
            f"processes, {settings.rounds} rounds, medians. {_processor()}; sentencepiece "
            f"{sentencepiece.__version__}, numpy {np.__version__}, python {platform.python_version()}.",
            "",
            "```",
            format_table(rows),
            "```",
            "",
            f"Goal: {SHARE_OF_SENTENCEPIECE} × {settings.processes} × SentencePiece's own rate on one "
            f"thread, {goal:.1f} MB/s: {'met' if ours >= goal else 'not met'}. By SentencePiece's faster "
            "way, which returns NumPy arrays and which prepare uses, it is "
            f"{ours / arrays / settings.processes:.2f} × {settings.processes}; SentencePiece itself, doing "
            f"nothing else in {settings.processes} processes at once, reaches here "
            f"{at_once / arrays / settings.processes:.2f} × {settings.processes}, and prepare "
            f"{ours / at_once:.2f} of that.",
            f"Goal: more than Megatron's builder: {'met' if ours > megatron else 'not met'}, "
            f"{ours / megatron:.2f} times as fast.",
        ]
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
