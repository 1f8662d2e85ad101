"""Look into prepared data: `python -m deltalm_ds.corpus DIR`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from tqdm import tqdm

from deltalm_ds.commands import parse, run
from deltalm_ds.data.corpus import Corpus
from deltalm_ds.data.fertility import measure_fertility
from deltalm_ds.data.sample_view import ColorChoice, view_sample, wants_color
from deltalm_ds.data.samples import SampleReader
from deltalm_ds.data.settings import DataSettings
from deltalm_ds.data.summary import describe_corpus, summarise
from deltalm_ds.errors import UserError
from deltalm_ds.text.tokenizer import Tokenizer

_POSITIONS = 1 << 62


@dataclass(frozen=True, kw_only=True)
class SampleSettings(DataSettings):
    """What training samples are made of."""

    num_loader_workers: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 0  # nothing is loaded ahead here
    # These need the length of a run; `pretrain --plan-data` knows it.
    max_epochs: tyro.conf.Suppress[tyro.conf.Fixed[float | None]] = None
    mixture_changes: tyro.conf.Suppress[tyro.conf.Fixed[tuple[str, ...]]] = ()


@dataclass(kw_only=True)
class CorpusSettings:
    """Show what a prepared folder holds: tables, pictures, and samples as training would see them.

    With the options of a training run, shares and samples are those of that run.
    """

    directory: tyro.conf.Positional[Path]
    """The prepared folder."""
    verify: bool = False
    """Read every file and compare its hash with the manifest's."""
    pictures: Path | None = None
    """Folder to draw into: languages.svg (shares), lengths.svg and fertility.svg."""
    samples: int = 0
    """Training samples to show, the spans in colour."""
    position: int = 0
    """Position in the order of training of the first sample shown."""
    color: ColorChoice = "auto"
    """Whether samples are coloured; auto: on a terminal, unless NO_COLOR is set."""
    fertility_documents: int = 200
    """Documents or pairs of each source on which the tokenizer's fertility is measured, 500 tokens of each at
    most; 0: none."""
    seed: int = 1
    """The run's seed, which names order and masks."""
    data_settings: SampleSettings = field(default_factory=SampleSettings)

    def __post_init__(self) -> None:
        for name in ("samples", "position", "fertility_documents"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} must be 0 or more, not {getattr(self, name)}")
        if self.position + self.samples > _POSITIONS:
            raise UserError(f"--position must be below 2^62, not {self.position}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed must lie in [0, 2^32), not {self.seed}")


def main() -> None:
    """The command."""
    settings = parse(CorpusSettings, "corpus")
    corpus = Corpus.open(settings.directory)
    if settings.verify:  # first: what is damaged is not worth showing
        with tqdm(total=corpus.num_bytes, desc="verifying", unit="B", unit_scale=True, disable=None) as bar:
            Corpus.open(settings.directory, verify=True, progress=bar.update)
    training, validation = corpus.sources("train"), corpus.sources("valid")
    reader = None
    if training or settings.samples or settings.pictures:
        reader = SampleReader(corpus, settings.data_settings, settings.seed)
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    summaries = summarise(training, reader.phases.quotas[0] if reader else None)
    fertility = measure_fertility(training or validation, tokenizer, settings.fertility_documents)
    print(describe_corpus(corpus, summaries, summarise(validation, None), fertility))
    if settings.pictures:
        from deltalm_ds.data.pictures import draw_pictures  # matplotlib takes a moment to import

        drawn = draw_pictures(settings.pictures, summaries, fertility)
        print(f"\ndrawn: {', '.join(map(str, drawn))}")
    if reader and settings.samples:
        color = wants_color(settings.color, sys.stdout)
        for position in range(settings.position, settings.position + settings.samples):
            print(f"\n{view_sample(reader.sample(position), tokenizer, color)}")
    if settings.verify:
        print(f"\nverified: {corpus.num_bytes:,} bytes are as the manifest says")


if __name__ == "__main__":
    run("corpus", main)
