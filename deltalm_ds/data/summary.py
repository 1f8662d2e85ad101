"""What a prepared corpus holds, in numbers by source, and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltalm_ds.data.corpus import Corpus, Source
from deltalm_ds.data.fertility import Fertility
from deltalm_ds.data.lengths import LengthSummary, summarise_lengths
from deltalm_ds.data.manifest import Kind
from deltalm_ds.tables import format_table
from deltalm_ds.text.printable import printable


@dataclass(frozen=True, kw_only=True)
class SourceSummary:
    """One source in numbers."""

    name: str
    """The language, "fr", or the pair, "en-fr"."""
    kind: Kind
    """"monolingual" or "pairs"."""
    num_documents: int
    """Documents or pairs."""
    num_tokens: int
    """Tokens, special ones counted."""
    token_share: float
    """Share of all tokens of the split."""
    sample_share: float | None
    """Share of all training samples, after the exponent; None in validation, which has no mixture."""
    lengths: LengthSummary | None
    """Lengths of documents or pairs; None where there are none."""


def summarise(sources: Sequence[Source], quotas: NDArray[np.int64] | None) -> list[SourceSummary]:
    """The numbers of the sources of one split.

    Args:
        sources: as `Corpus.sources` gives them.
        quotas: [sources] samples of each of them among any number; None where nothing is drawn.

    Raises: UserError where an index, as far as it is read, cannot be.
    """
    num_tokens = max(sum(source.num_tokens for source in sources), 1)
    shares = [None] * len(sources) if quotas is None else (quotas / quotas.sum()).tolist()
    return [
        SourceSummary(
            name=printable(source.name),
            kind=source.kind,
            num_documents=source.dataset.num_documents,
            num_tokens=source.num_tokens,
            token_share=source.num_tokens / num_tokens,
            sample_share=share,
            lengths=summarise_lengths(source),
        )
        for source, share in zip(sources, shares, strict=True)
    ]


def describe_corpus(
    corpus: Corpus,
    training: Sequence[SourceSummary],
    validation: Sequence[SourceSummary],
    fertility: Sequence[Fertility],
) -> str:
    """The tables of a corpus: its tokenizer, its training and validation sources, fertility by language."""
    tokenizer = corpus.manifest.tokenizer
    blocks = [
        f"{corpus.path}: {corpus.manifest.dtype} tokens, {corpus.num_bytes / 1e6:,.1f} MB, "
        f"fingerprint {corpus.fingerprint[:16]}\n"
        f"tokenizer: {tokenizer.num_pieces:,} pieces, <mask> {tokenizer.mask_id}, {tokenizer.num_sentinels} "
        f"sentinels from {tokenizer.first_sentinel_id}, {tokenizer.num_rows:,} rows"
    ]
    for title, summaries in (("training", training), ("validation", validation)):
        if summaries:
            blocks.append(f"{title}\n{_source_table(summaries)}")
    if fertility:
        blocks.append(
            f"tokenizer by language, on the first documents of every source\n{_language_table(fertility)}"
        )
    return "\n\n".join(blocks)


def _source_table(summaries: Sequence[SourceSummary]) -> str:
    """A row a source and one for all, under a heading."""
    rows = [
        ("source", "documents", "pairs", "tokens", "mean", "median", "longest", "of tokens", "of samples")
    ]
    for summary in summaries:
        count = f"{summary.num_documents:,}"
        lengths = summary.lengths
        rows.append(
            (
                summary.name,
                *(("", count) if summary.kind == "pairs" else (count, "")),
                f"{summary.num_tokens:,}",
                *(("", "", "") if lengths is None else _length_columns(lengths)),
                f"{summary.token_share:.2%}",
                "" if summary.sample_share is None else f"{summary.sample_share:.2%}",
            )
        )
    num_pairs = sum(summary.num_documents for summary in summaries if summary.kind == "pairs")
    num_documents = sum(summary.num_documents for summary in summaries) - num_pairs
    num_tokens = sum(summary.num_tokens for summary in summaries)
    totals = (
        "all",
        f"{num_documents:,}",
        f"{num_pairs:,}",
        f"{num_tokens:,}",
        "",
        "",
        "",
        "100.00%",
        "100.00%",
    )
    rows.append(totals)
    columns = len(rows[0]) if summaries[0].sample_share is not None else len(rows[0]) - 1
    table = format_table([row[:columns] for row in rows])
    if any(summary.lengths is not None and summary.lengths.is_sampled for summary in summaries):
        table += "\n~ and ≥: of a sample of documents, spread over the source"
    return table


def _length_columns(lengths: LengthSummary) -> tuple[str, str, str]:
    about, at_least = ("~", "≥") if lengths.is_sampled else ("", "")
    return f"{lengths.mean:,.1f}", f"{about}{lengths.median:,.0f}", f"{at_least}{lengths.longest:,}"


def _language_table(fertility: Iterable[Fertility]) -> str:
    rows = [("language", "tokens", "tokens/character", "tokens/word", "<unk>")]
    for counts in fertility:
        per_word = counts.tokens_per_word
        rows.append(
            (
                counts.language,
                f"{counts.tokens:,}",
                f"{counts.tokens_per_character:.3f}",
                "" if per_word is None else f"{per_word:.3f}",
                f"{counts.unknown_share:.3%}",
            )
        )
    return format_table(rows)
