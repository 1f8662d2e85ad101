"""How fast samples are read, by us, by T5 collators in NumPy and by megatron-core, and how long one waits.

    python benchmarks/data.py

See benchmarks/README.md.
"""

from __future__ import annotations

import itertools
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import made_data
import megatron_samples
import numpy as np
import report
import tyro
from collators import Collator
from goals import DATA

from deltalm_ds.data.batches import BatchPlan, StepReader
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.loader import StepLoader
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.files import write_text_atomically

BATCH, MICRO_BATCHES = 32, 8
MEGATRON_SAMPLES = 4
LENGTH = 512
OURS, PEER, MEGATRON = "ours, T5's form", "NumPy", "megatron-core"


@dataclass(kw_only=True)
class Settings:
    """Measure the reading side."""

    rounds: int = 40
    """Timed turns of each side."""
    consumer_steps: int = 600
    """Steps that the simulated consumer asks for, 32 ms each, after as many as a tenth to warm up."""
    documents: int = 20_000
    """Documents of 600 tokens in the made-up corpus, and twice as many pairs."""
    results: Path = Path(__file__).parent / "results"
    """Folder for data.md."""


Turn = Callable[[], int]
"""Makes samples and returns how many."""


def our_turn(corpus: Corpus, settings: DataSettings) -> Turn:
    """A step of one rank: 8 micro-batches of 32 samples."""
    reader = SampleReader(corpus, settings, seed=1)
    step_reader = StepReader(reader, rank=0, world_size=1, num_micro_batches=MICRO_BATCHES)
    batches = BatchPlan(batch_size=BATCH * MICRO_BATCHES).batches(reader.num_tokens)

    def turn() -> int:
        return sum(len(batch.sample_ids) for batch in step_reader.read(next(batches)).micro_batches)

    return turn


def collator_turns(corpus: Corpus) -> dict[str, Turn]:
    """Batches of 32 windows of the stream in random order, by each of the collator's ways."""
    objective = DataSettings(corruption_form="t5").monolingual_corruption
    num_tokens = objective.window_length(LENGTH)
    collator = Collator(num_tokens, objective, corpus.vocabulary.first_sentinel_id)
    dataset = corpus.sources("train")[0].dataset
    stream = dataset.tokens(0, dataset.num_tokens)
    order = np.random.default_rng(0).permutation(dataset.num_tokens // num_tokens) * num_tokens
    starts = itertools.cycle(order.tolist())

    def turn_of(way: Callable[[np.ndarray], object]) -> Turn:
        def turn() -> int:
            texts = [stream[start : start + num_tokens] for start in itertools.islice(starts, BATCH)]
            way(np.stack(texts).astype(np.int64))
            return BATCH

        return turn

    return {
        f"{PEER} collator, text by text": turn_of(collator.one_by_one),
        f"{PEER} collator, masks text by text": turn_of(collator.masks_one_by_one),
        f"{PEER} collator, batch-wise": turn_of(collator.at_once),
    }


def megatron_turn(corpus: Corpus, cache: Path, num_samples: int) -> Turn:
    """Samples one after the other."""
    prefix = corpus.sources("train")[0].dataset.prefix
    dataset = megatron_samples.open_dataset(prefix, corpus.vocabulary, cache, LENGTH, num_samples)
    numbers = iter(range(len(dataset)))

    def turn() -> int:
        for number in itertools.islice(numbers, MEGATRON_SAMPLES):
            dataset[number]
        return MEGATRON_SAMPLES

    return turn


def rates(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Samples a second of processor time, of every round; sides take turns, each is first in its turn."""
    for turn in turns.values():
        turn()
    found: dict[str, list[float]] = {name: [] for name in turns}
    names = list(turns)
    for _ in range(rounds):
        for name in names:
            start = time.process_time()
            num_samples = turns[name]()
            found[name].append(num_samples / (time.process_time() - start))
        names.append(names.pop(0))
    return found


def share_waited(corpus: Corpus, num_steps: int) -> float:
    """Of the time of a consumer that works for 32 ms on a step of 32 samples, with the default workers."""
    settings = DataSettings()
    reader = SampleReader(corpus, settings, seed=1)
    seconds_a_step = BATCH / DATA.consumed_samples_per_second
    batches = BatchPlan(batch_size=BATCH).batches(reader.num_tokens)
    with StepLoader(StepReader(reader, 0, 1, 1), batches, settings.num_loader_workers) as loader:
        for _ in range(num_steps // 10):
            next(loader)
            time.sleep(seconds_a_step)
        start, waited = time.perf_counter(), loader.waited_seconds
        for _ in range(num_steps):
            next(loader)
            time.sleep(seconds_a_step)
        return (loader.waited_seconds - waited) / (time.perf_counter() - start)


def rows(found: Mapping[str, list[float]]) -> Iterator[str]:
    """The Markdown table of rates; ratios are medians over rounds."""
    collators = [name for name in found if name.startswith(PEER)]
    fastest = max(collators, key=lambda name: statistics.median(found[name]))
    yield f"| side | samples/s and core | times the fastest collator | times {MEGATRON} | goals |"
    yield "|---|---|---|---|---|"
    for name, samples in found.items():
        ratios = [
            statistics.median(ours / peer for ours, peer in zip(samples, found[peer], strict=True))
            for peer in (fastest, MEGATRON)
        ]
        verdicts = []
        rate = statistics.median(samples)
        if name.startswith("ours"):
            verdicts.append(_verdict(f"{DATA.samples_per_second:,}/s", rate >= DATA.samples_per_second))
        if name == OURS:
            for ratio, goal in zip(ratios, (DATA.times_collator, DATA.times_megatron), strict=True):
                verdicts.append(_verdict(f"{goal:g} ×", ratio >= goal))
        yield f"| {name} | {rate:,.0f} | {ratios[0]:.2f} | {ratios[1]:.1f} | {', '.join(verdicts)} |"


def _verdict(goal: str, is_met: bool) -> str:
    return f"{goal} {'met' if is_met else '**not met**'}"


def markdown(found: Mapping[str, list[float]], waited: float) -> str:
    """The page of results."""
    machine = report.machine("cpu")
    names = ("cpu", "cores", "python", "torch")
    described = [f"{name} {machine[name]}" for name in names]
    described += [f"{name} {version(name)}" for name in ("numpy", "megatron-core")]
    verdict = _verdict(f"{DATA.share_waited:.0%}", waited < DATA.share_waited)
    return (
        "# Reading samples\n\n"
        f"Machine: {', '.join(described)}, {platform.system()}. Rates by processor time, medians of "
        f"{len(found[OURS])} rounds.\n\n" + "\n".join(rows(found)) + "\n\n"
        f"A consumer of {DATA.consumed_samples_per_second:,} samples/s, {BATCH} a step, waits for "
        f"StepLoader's {DataSettings().num_loader_workers} workers for {waited:.2%} of its time (goal: below "
        f"{verdict}).\n"
    )


def main() -> None:
    """Parse, measure, write."""
    settings = tyro.cli(Settings)
    with tempfile.TemporaryDirectory() as folder:
        corpus = made_data.write_corpus(Path(folder) / "corpus", settings.documents, 2 * settings.documents)
        num_megatron_samples = MEGATRON_SAMPLES * (settings.rounds + 1)
        turns = {
            OURS: our_turn(corpus, DataSettings(monolingual_share=1.0, corruption_form="t5")),
            "ours, the group's form": our_turn(corpus, DataSettings(monolingual_share=1.0)),
            "ours, rows of pairs": our_turn(corpus, DataSettings(monolingual_share=0.0)),
            "ours, four to one": our_turn(corpus, DataSettings()),
            **collator_turns(corpus),
            MEGATRON: megatron_turn(corpus, Path(folder) / "cache", num_megatron_samples),
        }
        found = rates(turns, settings.rounds)
        waited = share_waited(corpus, settings.consumer_steps)
    text = markdown(found, waited)
    print(text)
    write_text_atomically(settings.results / "data.md", text)


if __name__ == "__main__":
    sys.exit(main())
