"""Look into prepared data: `python -m deltalm_ds.corpus DIR`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from deltalm_ds.commands import parse, run
from deltalm_ds.data.corpus import Corpus, Source
from deltalm_ds.data.mixture import source_shares
from deltalm_ds.data.windows import read_tokens
from deltalm_ds.errors import UserError
from deltalm_ds.tables import format_table
from deltalm_ds.text.tokenizer import Tokenizer


@dataclass(kw_only=True)
class CorpusSettings:
    """Show what a prepared folder holds: sources, sizes, their shares of the mixture, samples as text."""

    directory: tyro.conf.Positional[Path]
    """The prepared folder."""
    verify: bool = False
    """Read every file and compare its hash with the manifest's."""
    samples: int = 1
    """Documents or pairs shown of every source."""
    sample_tokens: int = 60
    """Tokens shown of a document, at most."""
    split: Literal["train", "valid"] = "train"
    """The split that samples are taken from."""
    monolingual_share: float = 0.8
    """For the mixture column: the monolingual sources' share of all samples."""
    language_exponent: float = 0.3
    """For the mixture column: a source's share is proportional to tokens^exponent."""

    def __post_init__(self) -> None:
        if self.samples < 0 or self.sample_tokens < 1:
            raise UserError("--samples must not be negative, and --sample-tokens at least 1")
        if not 0 <= self.monolingual_share <= 1:
            raise UserError(f"--monolingual-share must be within 0..1, not {self.monolingual_share}")


def describe_corpus(corpus: Corpus, monolingual_share: float, language_exponent: float) -> str:
    """The tables of a corpus: its tokenizer, its training and its validation sources."""
    tokenizer = corpus.manifest.tokenizer
    blocks = [
        f"{corpus.path}: {corpus.manifest.dtype} tokens, {corpus.num_bytes / 1e6:,.1f} MB, "
        f"fingerprint {corpus.fingerprint[:16]}",
        f"tokenizer: {tokenizer.num_pieces:,} pieces, <mask> {tokenizer.mask_id}, {tokenizer.num_sentinels} "
        f"sentinels from {tokenizer.first_sentinel_id}, {tokenizer.num_rows:,} rows",
    ]
    training, validation = corpus.sources("train"), corpus.sources("valid")
    if training:
        shares = source_shares(
            [source.kind for source in training],
            [source.num_tokens for source in training],
            monolingual_share,
            language_exponent,
        )
        mixture = ["mixture", *(f"{share:.2%}" for share in shares), "100.00%"]
        blocks += ["", "training", _table(training, mixture)]
    if validation:
        blocks += ["", "validation", _table(validation, None)]
    return "\n".join(blocks)


def _table(sources: list[Source], last_column: list[str] | None) -> str:
    """A row a source and one for all, under a heading; `last_column` has a text for each of these."""
    rows = [("source", "documents", "pairs", "tokens")]
    for source in sources:
        count = f"{source.dataset.num_documents:,}"
        documents, pairs = ("", count) if source.kind == "pairs" else (count, "")
        rows.append((source.name, documents, pairs, f"{source.num_tokens:,}"))
    num_pairs = sum(source.dataset.num_documents for source in sources if source.kind == "pairs")
    num_documents = sum(source.dataset.num_documents for source in sources) - num_pairs
    num_tokens = sum(source.num_tokens for source in sources)
    rows.append(("all", f"{num_documents:,}", f"{num_pairs:,}", f"{num_tokens:,}"))
    if last_column is not None:
        return format_table([(*row, last) for row, last in zip(rows, last_column, strict=True)])
    return format_table(rows)


def sample_texts(source: Source, tokenizer: Tokenizer, count: int, max_tokens: int) -> Iterator[str]:
    """The beginnings of the first documents as text (`max_tokens` tokens), the sides of pairs by an arrow."""
    dataset = source.dataset
    for document in range(min(count, dataset.num_documents)):
        sequences = dataset.document(document)
        if len(sequences) != len(source.languages):
            raise dataset.damaged(f"document {document} of {source.kind} has {len(sequences):,} sequences")
        sides = []
        for start, stop in map(dataset.sequence_bounds, sequences):
            shown = min(stop, start + max_tokens)
            ids = read_tokens(dataset, start, shown, tokenizer.vocabulary.num_rows)
            sides.append(tokenizer.decode(ids) + (" …" if shown < stop else ""))
        yield " → ".join(sides)


def main() -> None:
    """The command."""
    settings = parse(CorpusSettings, "corpus")
    corpus = Corpus.open(settings.directory)
    if settings.verify:  # first: what is damaged is not worth showing
        with tqdm(total=corpus.num_bytes, desc="verifying", unit="B", unit_scale=True, disable=None) as bar:
            Corpus.open(settings.directory, verify=True, progress=bar.update)
    print(describe_corpus(corpus, settings.monolingual_share, settings.language_exponent))
    tokenizer = Tokenizer(corpus.tokenizer_path, corpus.vocabulary)
    for source in corpus.sources(settings.split):
        for text in sample_texts(source, tokenizer, settings.samples, settings.sample_tokens):
            print(f"\n{source.name}: {text}")
    if settings.verify:
        print(f"\nverified: {corpus.num_bytes:,} bytes are as the manifest says")


if __name__ == "__main__":
    run("corpus", main)
